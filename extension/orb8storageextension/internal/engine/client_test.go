package engine

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/consumer/consumererror"

	"github.com/orb8/orb8/internal/flow"
)

func client(t *testing.T, status int, answer string) *Client {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, answer)
	}))
	t.Cleanup(s.Close)
	return &Client{Writes: s.Client(), Queries: s.Client(), Endpoint: s.URL, Name: "Loki"}
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
