//go:build linux

package backends

import (
	"io"
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestEngines starts each engine, and asks it whether it takes and answers what orb8_storage sends.
func TestEngines(t *testing.T) {
	status := func(t *testing.T, url string) int {
		response, err := http.Get(url)
		require.NoError(t, err)
		defer response.Body.Close()
		_, err = io.Copy(io.Discard, response.Body)
		require.NoError(t, err)
		return response.StatusCode
	}
	const query = "/select/logsql/query?query=*"
	t.Run("VictoriaLogs", func(t *testing.T) {
		s := VictoriaLogs(t)
		assert.Equal(t, http.StatusOK, status(t, s.URL+query))
		require.NoError(t, s.Flush(t.Context()))
		s.Kill()
		_, err := http.Get(s.URL)
		require.Error(t, err)
		s.Start()
		assert.Equal(t, http.StatusOK, status(t, s.URL+query))
	})
	t.Run("VictoriaLogs cluster", func(t *testing.T) {
		c := VictoriaLogsCluster(t)
		assert.Equal(t, http.StatusOK, status(t, c.Select.URL+query))
		assert.NotEqual(t, http.StatusOK, status(t, c.Insert.URL+query))
		assert.Equal(t, http.StatusOK, status(t, c.Gateways[1].URL+query))
	})
	t.Run("Loki", func(t *testing.T) {
		s := Loki(t)
		assert.Equal(t, http.StatusUnauthorized, status(t, s.URL+"/loki/api/v1/labels"), "there are tenants")
	})
	t.Run("VictoriaLogs with a password", func(t *testing.T) {
		s := GuardedVictoriaLogs(t)
		ask := func(user, password string) int {
			request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+query, nil)
			require.NoError(t, err)
			request.SetBasicAuth(user, password)
			response, err := s.client.Do(request)
			require.NoError(t, err)
			defer response.Body.Close()
			return response.StatusCode
		}
		assert.Equal(t, http.StatusOK, ask(s.User, s.Password))
		assert.Equal(t, http.StatusUnauthorized, ask(s.User, "guess"))
	})
	t.Run("Loki with certificates", func(t *testing.T) {
		s := GuardedLoki(t)
		stranger := s.client.Transport.(*http.Transport).TLSClientConfig.Clone()
		stranger.Certificates = nil
		_, err := (&http.Client{Transport: &http.Transport{TLSClientConfig: stranger}}).Get(s.URL + "/ready")
		require.Error(t, err)
	})
}
