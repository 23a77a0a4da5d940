// Package ui serves the web page: what `make web` builds of the sources in web/.
package ui

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"
	"sync"
)

//go:embed dist
var dist embed.FS

const (
	// Vite puts a hash of the content into the name of whatever is below this folder.
	hashed  = "/assets/"
	forever = "public, max-age=31536000, immutable"
	// The browser asks each time, and hears that nothing has changed.
	revalidate = "no-cache"
	// policy lets the page load and ask only what this port serves. Names that it shows come from the network: if one of them
	// ever got into the page as more than text, nothing in it would run.
	policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
		"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

// pages are the paths that the page itself tells apart: each is answered with the same document.
var pages = []string{"/{$}", "/flows", "/pod", "/nodes"}

// Handler serves the page.
func Handler() (http.Handler, error) {
	files, err := fs.Sub(dist, "dist")
	if err != nil {
		return nil, err
	}
	return handler(files)
}

func handler(files fs.FS) (http.Handler, error) {
	mux := http.NewServeMux()
	err := fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(files, name)
		if err != nil {
			return err
		}
		a := newAsset(name, data)
		if name != "index.html" {
			mux.Handle("GET /"+name, a)
			return nil
		}
		for _, page := range pages {
			mux.Handle("GET "+page, a)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("cannot read the web page: %w", err)
	}
	return mux, nil
}

// asset is one file.
type asset struct {
	data                    []byte
	contentType, cache, tag string
	// zipped is made when it is first asked for: most collectors show their page to nobody.
	zipped func() []byte
}

func newAsset(name string, data []byte) *asset {
	sum := sha256.Sum256(data)
	a := &asset{
		data: data, contentType: mime.TypeByExtension(path.Ext(name)), cache: revalidate, tag: hex.EncodeToString(sum[:8]),
		zipped: sync.OnceValue(func() []byte { return zip(data) }),
	}
	if strings.HasPrefix("/"+name, hashed) {
		a.cache = forever
	}
	return a
}

func zip(data []byte) []byte {
	var out bytes.Buffer
	// Neither the level nor a buffer can fail.
	w, _ := gzip.NewWriterLevel(&out, gzip.BestCompression)
	_, _ = w.Write(data)
	_ = w.Close()
	return out.Bytes()
}

func (a *asset) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", a.contentType)
	h.Set("Cache-Control", a.cache)
	h.Set("Content-Security-Policy", policy)
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Vary", "Accept-Encoding")
	data, tag := a.data, a.tag
	if acceptsGzip(r.Header.Values("Accept-Encoding")) {
		data, tag = a.zipped(), tag+"-gzip"
		h.Set("Content-Encoding", "gzip")
	}
	h.Set("ETag", `"`+tag+`"`)
	for old := range strings.SplitSeq(r.Header.Get("If-None-Match"), ",") {
		if strings.TrimPrefix(strings.TrimSpace(old), "W/") == h.Get("ETag") {
			w.WriteHeader(http.StatusNotModified)
			return
		}
	}
	h.Set("Content-Length", fmt.Sprint(len(data)))
	if r.Method != http.MethodHead {
		_, _ = w.Write(data) // the client has gone
	}
}

// acceptsGzip reads what a browser says of the encodings that it can read: names, some with a weight, of which 0 is never.
func acceptsGzip(headers []string) bool {
	for encoding := range strings.SplitSeq(strings.Join(headers, ","), ",") {
		name, weight, _ := strings.Cut(encoding, ";")
		weight = strings.TrimLeft(strings.TrimPrefix(strings.TrimSpace(weight), "q="), "0.")
		if strings.TrimSpace(name) == "gzip" && (weight != "" || !strings.Contains(encoding, ";")) {
			return true
		}
	}
	return false
}
