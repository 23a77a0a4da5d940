package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

// TestTopOnATerminal holds that keys reach it, that it follows the terminal's size, and that the terminal is as it was afterwards.
func TestTopOnATerminal(t *testing.T) {
	t.Setenv("TERM", "xterm-256color")
	collector := &fakeCollector{aggregate: busy(true), status: cannedStatus()}
	agent := collector.serve(t)
	terminal := newTerminal(t, 100, 20)
	a := &app{target: target{agent: agent}, now: testNow, notices: &bytes.Buffer{}}
	defer a.close()
	done := make(chan error)
	go func() {
		root := newRootCommand(a)
		root.SetArgs(strings.Fields("top -n 200ms"))
		root.SetIn(terminal.tty)
		root.SetOut(terminal.tty)
		done <- root.ExecuteContext(t.Context())
	}()
	terminal.waitFor(t, "\x1b[?1049h")
	terminal.waitFor(t, "by pods; sorted by bytes")
	terminal.waitFor(t, "shop/db-0")
	terminal.forget()
	terminal.typeKeys(t, "?")
	terminal.waitFor(t, "this help")
	terminal.forget()
	terminal.resize(t, 60, 20)
	terminal.typeKeys(t, "?")
	terminal.waitFor(t, "db-0")
	terminal.typeKeys(t, "/--port 53\r")
	terminal.waitFor(t, "only --port 53")
	terminal.typeKeys(t, "q")
	assert.NoError(t, <-done)
	terminal.waitFor(t, "\x1b[?1049l")
}
