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
}
