//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestWatch holds that the question is asked again, with its range anew, until the user interrupts.
func TestWatch(t *testing.T) {
	collector := &fakeCollector{flows: cannedReply()}
	agent := collector.serve(t)
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	read, stdout := io.Pipe()
	var stderr bytes.Buffer
	done := make(chan int)
	go func() {
		done <- run(ctx, &app{target: target{agent: agent}, now: testNow}, strings.Fields("watch -n 200ms flows --limit 3 --not --port 53"), stdout, &stderr)
		stdout.Close()
	}()
	titles, rows := 0, 0
	lines := bufio.NewScanner(read)
	for titles < 3 && lines.Scan() {
		switch {
		case lines.Text() == "# every 200ms: flows --limit 3 --not --port 53    2026-03-04 15:06:07":
			titles++
		case strings.Contains(lines.Text(), "tcp"):
			rows++
		}
	}
	interrupt()
	go func() { _, _ = io.Copy(io.Discard, read) }()
	assert.Zero(t, <-done)
	assert.Empty(t, stderr.String())
	assert.Equal(t, 3, titles)
	assert.Greater(t, rows, titles)
	assert.Len(t, collector.asked.GetDeny(), 1, "filters are read anew, not added")
}

func TestWatchRefuses(t *testing.T) {
	for args, says := range map[string]string{
		"watch":                   "what is to be watched? use one of flows, dns,",
		"watch trace network":     "what is to be watched?",
		"watch watch flows":       "what is to be watched?",
		"watch -n 10ms flows":     "use a duration of 200ms or more",
		"watch flows -f":          "--follow never ends",
		"watch flows --port http": `"http" is no port`,
		"watch flows tcp":         `takes no argument, not "tcp"`,
	} {
		got := orb8(t, "127.0.0.1:1", strings.Fields(args)...)
		assert.Equal(t, exitUsage, got.code, args)
		assert.Contains(t, got.stderr, says, args)
		assert.Empty(t, got.stdout, args)
	}
}

// TestWatchOnATerminal holds that a picture fits, also after a resize, that a collector that is away is said, and that the
// terminal is as it was afterwards.
func TestWatchOnATerminal(t *testing.T) {
	t.Setenv("NO_COLOR", "1")
	collector := &fakeCollector{flows: cannedReply()}
	agent := collector.serve(t)
	terminal := newTerminal(t, 100, 6)
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	done := make(chan int)
	go func() {
		done <- run(ctx, &app{target: target{agent: agent}, now: testNow}, strings.Fields("watch -n 200ms flows --limit 1"), terminal.tty, io.Discard)
	}()
	terminal.waitFor(t, "\x1b[?1049h\x1b[?7l\x1b[H")
	terminal.waitFor(t, "every 200ms: flows --limit 1    2026-03-04 15:06:07\x1b[K")
	terminal.waitFor(t, "DESTINATION")
	terminal.waitFor(t, clearBelow)
	picture, _, found := strings.Cut(terminal.text(), clearBelow)
	require.True(t, found)
	assert.LessOrEqual(t, strings.Count(picture, "\n")+1, 6, "it fits: %q", picture)

	terminal.resize(t, 100, 40)
	terminal.forget()
	terminal.waitFor(t, "fd00::99")

	collector.mu.Lock()
	collector.err = errShort
	collector.mu.Unlock()
	terminal.waitFor(t, errShort.Error())
	interrupt()
	assert.Zero(t, <-done)
	terminal.waitFor(t, leaveScreen)
}
