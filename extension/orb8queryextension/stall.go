package orb8queryextension

import (
	"errors"
	"fmt"
	"net/http"
	"time"
)

// withoutEnd lifts the server's timeouts from a path whose replies have no end, and gives each write its own instead: a client that
// is there and reads nothing does not hold a stream for ever.
func withoutEnd(path string, stall time.Duration, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == path {
			controller := http.NewResponseController(w)
			if err := errors.Join(controller.SetReadDeadline(time.Time{}), controller.SetWriteDeadline(time.Time{})); err != nil {
				http.Error(w, fmt.Sprintf("cannot stream: %v", err), http.StatusInternalServerError)
				return
			}
			w = &patientWriter{ResponseWriter: w, controller: controller, stall: stall}
		}
		next.ServeHTTP(w, r)
	})
}

// patientWriter waits for the reader for so long, at each write.
type patientWriter struct {
	http.ResponseWriter
	controller *http.ResponseController
	stall      time.Duration
}

func (w *patientWriter) Write(b []byte) (n int, err error) {
	err = w.within(func() error {
		n, err = w.ResponseWriter.Write(b)
		return err
	})
	return n, err
}

func (w *patientWriter) FlushError() error { return w.within(w.controller.Flush) }

// Flush is what handlers look for; they get the error at the next write.
func (w *patientWriter) Flush() { _ = w.FlushError() }

// within lifts the deadline afterwards: an event may come in an hour.
func (w *patientWriter) within(do func() error) error {
	if err := w.controller.SetWriteDeadline(time.Now().Add(w.stall)); err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	return w.controller.SetWriteDeadline(time.Time{})
}

func (w *patientWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
