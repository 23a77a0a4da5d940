package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

// dropNoticeEvery keeps a slow terminal from being slowed down further by notices that it is slow.
const dropNoticeEvery = time.Second

// stream shows what the collector sends until the user interrupts it, which is success, or the collector ends it,
// which is not. The columns of the layout are asked for without rows.
func (a *app) stream(cmd *cobra.Command, req *orb8v1.StreamEventsRequest, output string, l layout) error {
	collector, err := a.connect(cmd.Context())
	if err != nil {
		return interrupted(cmd.Context(), err)
	}
	// Without the cancellation a write error would leave the stream open until the process ends.
	ctx, cancel := context.WithCancel(cmd.Context())
	defer cancel()
	events, err := collector.StreamEvents(ctx, connect.NewRequest(req))
	if err != nil {
		return collector.streamEnd(ctx, nil, err)
	}
	write := rowWriter(cmd.OutOrStdout(), output, l)
	drops := dropCounter{app: a, w: cmd.ErrOrStderr()}
	defer drops.report()
	for events.Receive() {
		drops.add(events.Msg().GetDropped())
		event := eventRow(events.Msg())
		if event.empty() {
			// A message with nothing else says what was dropped.
			continue
		}
		if err := write(event); err != nil {
			return err
		}
	}
	return collector.streamEnd(ctx, events.ResponseHeader(), events.Err())
}

// streamEnd says why a stream ended. header is what the other side sent at its beginning, if anything.
func (c *connection) streamEnd(ctx context.Context, header http.Header, err error) error {
	isCollector := strings.HasPrefix(header.Get("Content-Type"), "application/grpc")
	switch {
	case ctx.Err() != nil:
		return nil
	case err == nil:
		return fmt.Errorf("the collector at %s ended the stream; it may be restarting", c.name)
	case isCollector && !connect.IsWireError(err):
		return fmt.Errorf("lost the collector at %s: %w", c.name, err)
	}
	return c.explain(err)
}

// rowWriter returns what writes one row of a stream to w. In a stream, json is jsonl: an array would never end.
func rowWriter(w io.Writer, output string, l layout) func(row) error {
	switch output {
	case outputJSON, outputJSONL:
		return func(r row) error { return writeJSONLine(w, newJSON(r)) }
	case outputCSV:
		c := newCSVWriter(w, l.example)
		return func(r row) error { return c.write(newJSON(r)) }
	}
	s := screenOf(w)
	limit := s.width
	if output == outputWide {
		limit = 0
	}
	t := newTable(l.columns(nil, output == outputWide), nil, limit, s)
	// The header comes with the first row: before that the collector may still turn out not to be one.
	header := false
	return func(r row) error {
		if !header {
			header = true
			if err := t.writeHeader(w); err != nil {
				return err
			}
		}
		return t.writeRow(w, r)
	}
}

// dropCounter adds up the events that this reader lost, and says so now and then.
type dropCounter struct {
	app   *app
	w     io.Writer
	count uint64
	last  time.Time
}

func (d *dropCounter) add(n uint64) {
	d.count += n
	if d.app.now().Sub(d.last) >= dropNoticeEvery {
		d.report()
	}
}

func (d *dropCounter) report() {
	if d.count == 0 {
		return
	}
	notice(d.w, "dropped %s: this reader is too slow; narrow the filters", plural(d.count, "event"))
	d.count = 0
	d.last = d.app.now()
}
