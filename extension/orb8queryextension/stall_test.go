package orb8queryextension

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A reader that has stopped is let go, one that has nothing to read is not.
func TestStalledReaderIsLetGo(t *testing.T) {
	const stall = 200 * time.Millisecond
	for _, protocol := range []string{"HTTP/1.1", "HTTP/2.0"} {
		t.Run(protocol, func(t *testing.T) {
			ended := make(chan error, 1)
			server := httptest.NewUnstartedServer(withoutEnd("/", stall, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				assert.Equal(t, protocol, r.Proto)
				w.(http.Flusher).Flush()
				time.Sleep(2 * stall) // an event that is long in coming
				block := make([]byte, 64<<10)
				for {
					if _, err := w.Write(block); err != nil {
						ended <- err
						return
					}
				}
			})))
			server.Config.WriteTimeout = stall / 4
			server.EnableHTTP2 = protocol == "HTTP/2.0"
			server.StartTLS()
			defer server.Close()
			resp, err := server.Client().Get(server.URL)
			require.NoError(t, err)
			defer resp.Body.Close()
			one := make([]byte, 1)
			_, err = resp.Body.Read(one)
			require.NoError(t, err, "the wait for the event did not end the reply")
			select {
			case err := <-ended:
				assert.Error(t, err)
			case <-time.After(patience):
				require.Fail(t, "the writer waits for ever")
			}
		})
	}
}
