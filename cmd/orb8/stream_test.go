package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

type eventStream = connect.ServerStream[orb8v1.StreamEventsResponse]

const lostItsEnd = "ended the stream; it may be restarting\n"

// sending is a stream of canned events that ends after them.
func sending(kind orb8v1.EventKind, dropped ...uint64) func(context.Context, *eventStream) error {
	return func(_ context.Context, stream *eventStream) error {
		for i, f := range cannedFlows() {
			e := &orb8v1.StreamEventsResponse{Kind: kind, Time: f.End, Flow: f}
			if i < len(dropped) {
				e.Dropped = dropped[i]
			}
			if err := stream.Send(e); err != nil {
				return err
			}
		}
		return nil
	}
}

func TestStreamGolden(t *testing.T) {
	tests := []struct {
		golden string
		kind   orb8v1.EventKind
		args   []string
	}{
		{"follow.txt", orb8v1.EventKind_EVENT_KIND_FLOW, []string{"flows", "--follow"}},
		{"follow_wide.txt", orb8v1.EventKind_EVENT_KIND_FLOW, []string{"flows", "--follow", "-o", "wide"}},
		{"follow.jsonl", orb8v1.EventKind_EVENT_KIND_END, []string{"flows", "--follow", "-o", "json"}},
		{"trace.txt", orb8v1.EventKind_EVENT_KIND_SYN, []string{"trace", "network"}},
		{"trace_wide.txt", orb8v1.EventKind_EVENT_KIND_RST, []string{"trace", "network", "-o", "wide"}},
		{"trace.jsonl", orb8v1.EventKind_EVENT_KIND_FIN, []string{"trace", "network", "-o", "jsonl"}},
	}
	for _, tt := range tests {
		t.Run(tt.golden, func(t *testing.T) {
			agent := (&fakeCollector{stream: sending(tt.kind)}).serve(t)
			got := orb8(t, agent, tt.args...)
			assertGolden(t, tt.golden, got.stdout)
			assert.Equal(t, exitFailed, got.code, "a stream does not end by itself")
			assert.Equal(t, "orb8: the collector at "+agent+" "+lostItsEnd, got.stderr)
		})
	}
}

func TestStreamAsks(t *testing.T) {
	records := []orb8v1.EventKind{orb8v1.EventKind_EVENT_KIND_FLOW, orb8v1.EventKind_EVENT_KIND_END}
	tests := []struct {
		args string
		want *orb8v1.StreamEventsRequest
	}{
		{"flows -f", &orb8v1.StreamEventsRequest{Kinds: records}},
		{"flows -f --pod a", &orb8v1.StreamEventsRequest{Kinds: records, Allow: []*orb8v1.FlowFilter{{Pods: []string{"a"}}}}},
		{"trace network", &orb8v1.StreamEventsRequest{Kinds: packetKinds()}},
		{"trace network --kind SYN,rst --port 80", &orb8v1.StreamEventsRequest{
			Kinds: []orb8v1.EventKind{orb8v1.EventKind_EVENT_KIND_SYN, orb8v1.EventKind_EVENT_KIND_RST},
			Allow: []*orb8v1.FlowFilter{{Ports: []uint32{80}}},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			collector := &fakeCollector{stream: sending(orb8v1.EventKind_EVENT_KIND_SYN)}
			orb8(t, collector.serve(t), strings.Fields(tt.args)...)
			assert.True(t, proto.Equal(tt.want, collector.streamed), "want %v, got %v", tt.want, collector.streamed)
		})
	}
}

func TestTraceRefusesKinds(t *testing.T) {
	// Flow records are not events of a packet: they are what "flows --follow" shows.
	for _, kind := range []string{"flow", "end", "ack", "", "syn,"} {
		got := orb8(t, "127.0.0.1:1", "trace", "network", "--kind", kind)
		assert.Equal(t, exitUsage, got.code)
		assert.Contains(t, got.stderr, "--kind")
		assert.Contains(t, got.stderr, "use new, syn, fin, rst or packet")
	}
}

// TestStreamEndsWhenInterrupted also proves that rows come as they are sent: it interrupts when the first has come.
func TestStreamEndsWhenInterrupted(t *testing.T) {
	closed := make(chan struct{})
	collector := &fakeCollector{stream: func(ctx context.Context, stream *eventStream) error {
		defer close(closed)
		if err := sending(orb8v1.EventKind_EVENT_KIND_SYN)(ctx, stream); err != nil {
			return err
		}
		<-ctx.Done()
		return ctx.Err()
	}}
	agent := collector.serve(t)
	for _, args := range [][]string{{"flows", "--follow"}, {"trace", "network", "-o", "jsonl"}} {
		closed = make(chan struct{})
		ctx, interrupt := context.WithCancel(t.Context())
		defer interrupt()
		rows, stdout := io.Pipe()
		go func() {
			_, _ = io.ReadFull(rows, make([]byte, 1))
			interrupt()
			_, _ = io.Copy(io.Discard, rows)
		}()
		var stderr bytes.Buffer
		code := run(ctx, &app{target: target{agent: agent}, now: testNow}, args, stdout, &stderr)
		stdout.Close()
		assert.Zero(t, code)
		assert.Empty(t, stderr.String())
		<-closed // the collector is told, too
	}
}

func TestStreamLosesTheCollector(t *testing.T) {
	tests := []struct {
		name  string
		begin func(context.Context, *eventStream) error
		lines int
	}{
		{"with events shown", sending(orb8v1.EventKind_EVENT_KIND_SYN), len(cannedFlows()) + 1},
		// Send(nil) sends the headers alone: so a quiet stream starts.
		{"while it was quiet", func(_ context.Context, stream *eventStream) error { return stream.Send(nil) }, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			collector := &fakeCollector{stream: func(ctx context.Context, stream *eventStream) error {
				if err := tt.begin(ctx, stream); err != nil {
					return err
				}
				panic(http.ErrAbortHandler)
			}}
			agent := collector.serve(t)
			got := orb8(t, agent, "trace", "network")
			assert.Equal(t, exitFailed, got.code)
			assert.Contains(t, got.stderr, "orb8: lost the collector at "+agent+": ")
			assert.Equal(t, tt.lines, strings.Count(got.stdout, "\n"))
		})
	}
}

func TestStreamRefused(t *testing.T) {
	collector := &fakeCollector{stream: func(context.Context, *eventStream) error {
		return connect.NewError(connect.CodeInvalidArgument, errShort)
	}}
	got := orb8(t, collector.serve(t), "trace", "network")
	assert.Equal(t, exitFailed, got.code)
	assert.Contains(t, got.stderr, errShort.Error()+" (invalid_argument)")
	assert.Empty(t, got.stdout)
}

func TestStreamSaysWhatWasDropped(t *testing.T) {
	collector := &fakeCollector{stream: sending(orb8v1.EventKind_EVENT_KIND_SYN, 0, 1000, 20, 3)}
	got := orb8(t, collector.serve(t), "trace", "network", "-o", "jsonl")
	// The first drop is told at once, those of the same second together.
	assert.Contains(t, got.stderr, "orb8: dropped 1,000 events: this reader is too slow; narrow the filters\norb8: dropped 23 events")
	assert.Equal(t, len(cannedFlows()), strings.Count(got.stdout, "\n"))
}

func TestStreamMessageWithoutFlow(t *testing.T) {
	collector := &fakeCollector{stream: func(_ context.Context, stream *eventStream) error {
		return stream.Send(&orb8v1.StreamEventsResponse{Dropped: 1})
	}}
	got := orb8(t, collector.serve(t), "trace", "network")
	assert.Empty(t, got.stdout)
	assert.Contains(t, got.stderr, "dropped 1 event:")
}

func TestDropCounterReportsOnceAnInterval(t *testing.T) {
	now := testNow()
	var out strings.Builder
	d := dropCounter{app: &app{now: func() time.Time { return now }}, w: &out}
	for range 10 {
		d.add(1)
		now = now.Add(dropNoticeEvery / 2)
	}
	assert.Equal(t, 5, strings.Count(out.String(), "\n"))
	d.report()
	d.report()
	assert.Equal(t, 6, strings.Count(out.String(), "\n"), "what is left is told at the end, once")
}

// brokenPipe fails as a reader that went away does.
type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestOutputFails(t *testing.T) {
	collector := &fakeCollector{
		flows:  cannedReply(),
		status: cannedStatus(),
		stream: func(ctx context.Context, stream *eventStream) error {
			if err := sending(orb8v1.EventKind_EVENT_KIND_SYN)(ctx, stream); err != nil {
				return err
			}
			<-ctx.Done()
			return ctx.Err()
		},
	}
	agent := collector.serve(t)
	for _, args := range []string{
		"flows", "flows -o wide", "flows -o json", "flows -o jsonl", "flows -f", "trace network", "trace network -o jsonl", "status", "status -o json",
	} {
		root := newRootCommand(&app{target: target{agent: agent}, now: testNow})
		root.SetArgs(strings.Fields(args))
		root.SetOut(brokenPipe{})
		root.SetErr(io.Discard)
		err := root.ExecuteContext(t.Context())
		require.Error(t, err, args)
		assert.True(t, errors.Is(err, io.ErrClosedPipe), "%s: %v", args, err)
	}
}
