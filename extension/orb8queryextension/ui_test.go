package orb8queryextension

import (
	"context"
	"errors"
	"io"
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/confmap"

	"github.com/orb8/orb8/api/orb8/v1/orb8v1connect"
)

func getPage(t *testing.T, url, token string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	require.NoError(t, err)
	if token != "" {
		req.Header.Set("Authorization", token)
	}
	resp, err := http1(t).Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp, string(data)
}

func TestPageAndAPIShareThePort(t *testing.T) {
	_, component := newStore(t)
	s := serve(t, component, nil)
	resp, document := getPage(t, "http://"+s.address+"/flows?t=5m", "")
	assert.Equal(t, http.StatusOK, resp.StatusCode)
	assert.Contains(t, document, `<div id="app">`)
	assert.Contains(t, resp.Header.Get("Content-Security-Policy"), "script-src 'self'")

	status, _ := post(t, s, orb8v1connect.OrbitServiceGetStatusProcedure, `{}`)
	assert.Equal(t, http.StatusOK, status)
	resp, _ = getPage(t, "http://"+s.address+"/orb8.v1.OrbitService/NoSuchMethod", "")
	assert.Equal(t, http.StatusNotFound, resp.StatusCode, "not the page")
}

func TestPageCanBeLeftOut(t *testing.T) {
	_, component := newStore(t)
	s := serve(t, component, func(c *Config) { c.UI.Enabled = false })
	resp, _ := getPage(t, "http://"+s.address+"/", "")
	assert.Equal(t, http.StatusNotFound, resp.StatusCode)
	status, _ := post(t, s, orb8v1connect.OrbitServiceGetStatusProcedure, `{}`)
	assert.Equal(t, http.StatusOK, status)
}

// tokens lets those in who know one.
type tokens struct {
	component.StartFunc
	component.ShutdownFunc
}

func (tokens) Authenticate(ctx context.Context, headers map[string][]string) (context.Context, error) {
	for _, name := range []string{"Authorization", "authorization"} {
		if values := headers[name]; len(values) > 0 && values[0] == "Bearer secret" {
			return ctx, nil
		}
	}
	return ctx, errors.New("unknown")
}

func TestPageIsBehindTheAuthenticationOfTheAPI(t *testing.T) {
	id := component.MustNewID("tokens")
	_, store := newStore(t)
	s := serveWith(t, store, host{id: tokens{}}, func(c *Config) {
		require.NoError(t, confmap.NewFromStringMap(map[string]any{"auth": map[string]any{"authenticator": "tokens"}}).Unmarshal(c))
	})
	for token, want := range map[string]int{"": http.StatusUnauthorized, "Bearer wrong": http.StatusUnauthorized, "Bearer secret": http.StatusOK} {
		resp, _ := getPage(t, "http://"+s.address+"/", token)
		assert.Equal(t, want, resp.StatusCode, "%q", token)
	}
}
