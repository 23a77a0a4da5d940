//go:build linux

package workload

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"
)

// Web is a web server that serves files, with its clients in the same process.
type Web struct {
	// Dir holds the files, one of which is named File.
	Dir, File string
	// For is how long requests are made, one after the other.
	For time.Duration
}

func (w *Web) run() error {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := http.Server{Handler: http.FileServerFS(os.DirFS(w.Dir))}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	url := fmt.Sprintf("http://%s/%s", listener.Addr(), w.File)
	for end := time.Now().Add(w.For); time.Now().Before(end); {
		if err := get(url); err != nil {
			return err
		}
	}
	if err := server.Close(); err != nil {
		return err
	}
	if err := <-ended; err != http.ErrServerClosed {
		return err
	}
	return nil
}

// get makes a connection for each request, as most clients of a web server do.
func get(url string) error {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get(url)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, response.Status)
	}
	_, err = io.Copy(io.Discard, response.Body)
	return err
}
