package engine

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/consumer/consumererror"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/storage"
)

func client(t *testing.T, status int, answer string) *Client {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, answer)
	}))
	t.Cleanup(s.Close)
	return &Client{Writes: s.Client(), Queries: s.Client(), Endpoint: s.URL, Name: "Loki", Key: "loki"}
}

// What may pass is to be tried again, by whoever has the records: their queue keeps them.
func TestPush(t *testing.T) {
	r := record()
	b := newBatch(flow.EventNameFlow)
	b.flow(&r)
	for status, permanent := range map[int]bool{
		http.StatusBadRequest: true, http.StatusRequestEntityTooLarge: true, http.StatusUnauthorized: false, http.StatusNotFound: false,
		http.StatusTooManyRequests: false, http.StatusInternalServerError: false, http.StatusServiceUnavailable: false,
	} {
		c := client(t, status, "why\x00 not?\n"+strings.Repeat("x", 10000))
		err := c.Push(t.Context(), "/otlp", nil, b.logs)
		assert.ErrorContains(t, err, "cannot write to Loki: "+c.Endpoint+"/otlp answers ")
		assert.ErrorContains(t, err, http.StatusText(status)+": why not? xx")
		assert.Less(t, len(err.Error()), 800)
		assert.Equal(t, permanent, consumererror.IsPermanent(err), status)
	}
	require.NoError(t, client(t, http.StatusNoContent, "").Push(t.Context(), "/otlp", nil, b.logs))
}

func TestAsk(t *testing.T) {
	none := func(io.Reader) error { return nil }
	err := client(t, http.StatusForbidden, "no").Ask(t.Context(), "/q", url.Values{}, none)
	assert.ErrorContains(t, err, "cannot read from Loki: http://")
	assert.ErrorContains(t, err, "/q answers 403 Forbidden: no")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	assert.Equal(t, context.Canceled, client(t, http.StatusOK, "").Ask(ctx, "/q", url.Values{}, none))
	assert.ErrorContains(t, (&Client{Queries: http.DefaultClient, Endpoint: "http://127.0.0.1:1", Name: "Loki"}).Ask(t.Context(), "/q", nil, none), "connection refused")
}

// Whoever asks is told whether the engine is why there is no answer: it may have one later.
func TestAway(t *testing.T) {
	isAway := func(c *Client, use func(io.Reader) error) bool {
		err := c.Ask(t.Context(), "/q", url.Values{}, use)
		require.ErrorContains(t, err, "cannot read from Loki: ")
		return errors.As(err, new(*storage.UnavailableError))
	}
	none := func(io.Reader) error { return nil }
	for status, away := range map[int]bool{
		http.StatusBadRequest: false, http.StatusUnprocessableEntity: false, http.StatusUnauthorized: true, http.StatusForbidden: true,
		http.StatusNotFound: true, http.StatusTooManyRequests: true, http.StatusInternalServerError: true, http.StatusServiceUnavailable: true,
	} {
		assert.Equal(t, away, isAway(client(t, status, "no"), none), status)
	}
	assert.True(t, isAway(&Client{Queries: http.DefaultClient, Endpoint: "http://127.0.0.1:1", Name: "Loki"}, none), "nobody listens")
	assert.False(t, isAway(client(t, http.StatusOK, "{}"), func(io.Reader) error { return errors.New("not what was asked for") }))

	torn := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, "half")
	}))
	t.Cleanup(torn.Close)
	assert.True(t, isAway(&Client{Queries: torn.Client(), Endpoint: torn.URL, Name: "Loki"}, func(r io.Reader) error {
		_, err := io.ReadAll(r)
		return err
	}), "it ended while it answered")
}

// The way to an engine may be wrong, and the records that go there are not: they are kept until it is right.
func TestMisdirected(t *testing.T) {
	r := record()
	b := newBatch(flow.EventNameFlow)
	b.flow(&r)
	for answer, status := range map[string]int{
		"Client sent an HTTP request to an HTTPS server.":                           http.StatusBadRequest,
		`unsupported path requested: "/otlp/v1/logs"`:                               http.StatusBadRequest,
		"requests to /insert/* are disabled with -insert.disable command-line flag": http.StatusBadRequest,
		"404 page not found": http.StatusNotFound,
	} {
		err := client(t, status, answer).Push(t.Context(), "/insert", nil, b.logs)
		assert.ErrorContains(t, err, answer+"; check loki::endpoint")
		assert.False(t, consumererror.IsPermanent(err), answer)
	}
}

func TestHints(t *testing.T) {
	none := func(io.Reader) error { return nil }
	ask := func(c *Client) string { return fmt.Sprint(c.Ask(t.Context(), "/q", nil, none)) }
	assert.Regexp(t, "/q answers 401 Unauthorized; check loki::auth or headers$", ask(client(t, http.StatusUnauthorized, "")))
	assert.Regexp(t, "/q answers 403 Forbidden: no; check loki::auth or headers$", ask(client(t, http.StatusForbidden, "no")))

	plain := client(t, http.StatusOK, "")
	plain.Endpoint = strings.Replace(plain.Endpoint, "http:", "https:", 1)
	assert.Regexp(t, "server gave HTTP response to HTTPS client; check loki::endpoint: the server speaks http://$", ask(plain))
	silent := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	t.Cleanup(silent.Close)
	assert.Regexp(t, "EOF; check loki::endpoint: the server may speak https://$", ask(&Client{Queries: silent.Client(), Endpoint: silent.URL, Key: "loki"}))

	secure := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	secure.Config.ErrorLog = log.New(io.Discard, "", 0) // of handshakes that fail, as they are to
	secure.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert, MaxVersion: tls.VersionTLS12}
	secure.StartTLS()
	t.Cleanup(secure.Close)
	with := func(change func(*tls.Config)) *Client {
		transport := secure.Client().Transport.(*http.Transport).Clone()
		change(transport.TLSClientConfig)
		return &Client{Queries: &http.Client{Transport: transport}, Endpoint: secure.URL, Name: "Loki", Key: "loki"}
	}
	assert.Regexp(t, "remote error: tls: .*; check loki::tls::cert_file and tls::key_file$", ask(with(func(*tls.Config) {})))
	assert.Regexp(t, "unknown authority; check loki::tls::ca_file$", ask(with(func(c *tls.Config) { c.RootCAs = nil })))
	assert.Regexp(t, "; check loki::endpoint or tls::server_name_override$", ask(with(func(c *tls.Config) { c.ServerName = "another" })))
	assert.Regexp(t, "; check loki::tls::ca_file, and the server's certificate$", ask(with(func(c *tls.Config) {
		c.Time = func() time.Time { return time.Now().AddDate(100, 0, 0) }
	})))
}

// An address may have a user and a password.
func TestPasswordsAreNotTold(t *testing.T) {
	c := client(t, http.StatusUnauthorized, "")
	c.Endpoint = strings.Replace(c.Endpoint, "//", "//user:secret@", 1)
	for _, err := range []error{
		c.Ask(t.Context(), "/q", nil, nil), (&Client{Queries: http.DefaultClient, Endpoint: "http://user:secret@127.0.0.1:1"}).Ask(t.Context(), "/q", nil, nil),
	} {
		require.ErrorContains(t, err, "user:")
		assert.NotContains(t, err.Error(), "secret")
	}
}
