package ui

import (
	"compress/gzip"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"path"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const script = "assets/index-abcd1234.js"

func site(t *testing.T) http.Handler {
	t.Helper()
	h, err := handler(fstest.MapFS{
		"index.html": {Data: []byte("<!doctype html>")},
		script:       {Data: []byte(strings.Repeat("let page = 'orb8'; ", 1000))},
	})
	require.NoError(t, err)
	return h
}

func get(h http.Handler, method, target string, header ...string) *http.Response {
	r := httptest.NewRequest(method, target, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func body(t *testing.T, resp *http.Response) string {
	t.Helper()
	data, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return string(data)
}

func TestPathsOfThePageAreOneDocument(t *testing.T) {
	h := site(t)
	for _, target := range []string{"/", "/flows", "/flows?pod=shop/cart&t=1h", "/pod", "/nodes"} {
		resp := get(h, http.MethodGet, target)
		assert.Equal(t, http.StatusOK, resp.StatusCode, target)
		assert.Equal(t, "text/html; charset=utf-8", resp.Header.Get("Content-Type"), target)
		assert.Equal(t, "no-cache", resp.Header.Get("Cache-Control"), "%s: a new version is seen at once", target)
		assert.Equal(t, "<!doctype html>", body(t, resp), target)
	}
	for _, target := range []string{"/index.html", "/flows/", "/assets/", "/assets/other.js", "/orb8.v1.OrbitService/Nothing"} {
		assert.Equal(t, http.StatusNotFound, get(h, http.MethodGet, target).StatusCode, target)
	}
	assert.Equal(t, http.StatusMethodNotAllowed, get(h, http.MethodPost, "/flows").StatusCode)
}

func TestHeaders(t *testing.T) {
	h := site(t)
	for _, target := range []string{"/", "/" + script} {
		header := get(h, http.MethodGet, target).Header
		assert.Equal(t, "nosniff", header.Get("X-Content-Type-Options"), target)
		assert.Equal(t, "no-referrer", header.Get("Referrer-Policy"), "%s: addresses name pods", target)
		csp := header.Get("Content-Security-Policy")
		assert.Contains(t, csp, "default-src 'none'", target)
		assert.Contains(t, csp, "frame-ancestors 'none'", target)
		assert.NotContains(t, csp, "unsafe", target)
		assert.NotContains(t, csp, "http", "%s: no other host", target)
	}
	assert.Equal(t, "public, max-age=31536000, immutable", get(h, http.MethodGet, "/"+script).Header.Get("Cache-Control"))
}

func TestCompression(t *testing.T) {
	h := site(t)
	plain := get(h, http.MethodGet, "/"+script)
	assert.Empty(t, plain.Header.Get("Content-Encoding"))
	want := body(t, plain)

	zipped := get(h, http.MethodGet, "/"+script, "Accept-Encoding", "br, gzip, deflate")
	assert.Equal(t, "gzip", zipped.Header.Get("Content-Encoding"))
	assert.Equal(t, "Accept-Encoding", zipped.Header.Get("Vary"))
	data := body(t, zipped)
	assert.Less(t, len(data), len(want)/10)
	r, err := gzip.NewReader(strings.NewReader(data))
	require.NoError(t, err)
	unzipped, err := io.ReadAll(r)
	require.NoError(t, err)
	assert.Equal(t, want, string(unzipped))
	assert.NotEqual(t, plain.Header.Get("ETag"), zipped.Header.Get("ETag"), "other bytes")

	for accept, want := range map[string]bool{
		"": false, "gzip": true, "gzip;q=0.5": true, "gzip; q=1": true, "gzip;q=0": false, "gzip; q=0.000": false, "x-gzip2": false, "br, gzip": true,
	} {
		assert.Equal(t, want, acceptsGzip([]string{accept}), accept)
	}
}

func TestUnchangedIsNotSentAgain(t *testing.T) {
	h := site(t)
	tag := get(h, http.MethodGet, "/").Header.Get("ETag")
	require.NotEmpty(t, tag)
	for _, known := range []string{tag, `"other", ` + tag, "W/" + tag} {
		resp := get(h, http.MethodGet, "/", "If-None-Match", known)
		assert.Equal(t, http.StatusNotModified, resp.StatusCode, known)
		assert.Empty(t, body(t, resp), known)
	}
	assert.Equal(t, http.StatusOK, get(h, http.MethodGet, "/", "If-None-Match", `"other"`).StatusCode)
	head := get(h, http.MethodHead, "/")
	assert.Equal(t, "15", head.Header.Get("Content-Length"))
	assert.Empty(t, body(t, head))
}

// TestBuiltPage holds what was built against the policy and the size that the page is meant to have.
func TestBuiltPage(t *testing.T) {
	files, err := fs.Sub(dist, "dist")
	require.NoError(t, err)
	h, err := Handler()
	require.NoError(t, err)
	document := body(t, get(h, http.MethodGet, "/"))
	assert.NotRegexp(t, regexp.MustCompile(`<script>|<style|style=|https?://`), document, "the policy forbids it")

	links := regexp.MustCompile(`(?:src|href)="\./([^"]+)"`).FindAllStringSubmatch(document, -1)
	require.GreaterOrEqual(t, len(links), 3, "script, style and icon")
	for _, link := range links {
		resp := get(h, http.MethodGet, "/"+link[1], "Accept-Encoding", "gzip")
		assert.Equal(t, http.StatusOK, resp.StatusCode, link[1])
		assert.NotEmpty(t, resp.Header.Get("Content-Type"), link[1])
	}
	scripts := 0
	require.NoError(t, fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && path.Ext(name) == ".js" {
			scripts += len(body(t, get(h, http.MethodGet, "/"+name, "Accept-Encoding", "gzip")))
		}
		return err
	}))
	assert.Positive(t, scripts)
	assert.Less(t, scripts, 150<<10, "compressed bytes of all scripts")
}
