package dcgm

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestScrape(t *testing.T) {
	var answer func(http.ResponseWriter)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		assert.Contains(t, r.Header.Get("Accept"), "text/plain")
		answer(w)
	}))
	defer server.Close()
	c := NewClient(server.Client(), server.URL+"/metrics")
	defer c.Close()

	answer = func(w http.ResponseWriter) { _, _ = w.Write(load(t, "3.3.9-a100.prom")) }
	page, err := c.Scrape(t.Context())
	require.NoError(t, err)
	assert.Len(t, page.Devices, 2)

	before := "cannot scrape dcgm-exporter: " + server.URL + "/metrics: "
	answer = func(w http.ResponseWriter) { http.Error(w, "no", http.StatusNotFound) }
	_, err = c.Scrape(t.Context())
	assert.EqualError(t, err, before+"404 Not Found; the exporter's path is /metrics")
	assert.ErrorIs(t, err, ErrAbsent)
	answer = func(w http.ResponseWriter) { w.WriteHeader(http.StatusInternalServerError) }
	_, err = c.Scrape(t.Context())
	assert.EqualError(t, err, before+"500 Internal Server Error")
	assert.NotErrorIs(t, err, ErrAbsent)
	answer = func(w http.ResponseWriter) { _, _ = w.Write([]byte("<!doctype html><p>Welcome")) }
	_, err = c.Scrape(t.Context())
	assert.EqualError(t, err, before+"the page is not what dcgm-exporter writes: there is no metric of dcgm-exporter in it")
	assert.ErrorIs(t, err, ErrAbsent)
	answer = func(w http.ResponseWriter) { _, _ = w.Write(bytes.Repeat([]byte("#\n"), maxPage/2+1)) }
	_, err = c.Scrape(t.Context())
	assert.EqualError(t, err, before+"the page is larger than 16 MiB")

	server.Close()
	_, err = c.Scrape(t.Context())
	assert.ErrorContains(t, err, "cannot scrape dcgm-exporter: Get \""+server.URL+"/metrics\": ")
	assert.ErrorContains(t, err, "connection refused")
	assert.ErrorIs(t, err, ErrAbsent)
}

func TestScrapeOfNoURL(t *testing.T) {
	_, err := NewClient(http.DefaultClient, "http://[").Scrape(t.Context())
	assert.ErrorContains(t, err, "cannot scrape dcgm-exporter")
}
