package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/spf13/cobra"
)

const (
	// firstWithin is how long a pod waits for its first client, idleAtMost how long it is without one later.
	firstWithin = time.Minute
	idleAtMost  = 15 * time.Second
	// silentAtMost is how long a client may send nothing: those that are there send a ping after pingAfter.
	silentAtMost = 3 * pingAfter
)

// newTraceServeCommand is what a pod runs that `orb8 trace --node` has started. It is not for users.
func newTraceServeCommand() *cobra.Command {
	var receiver, listen string
	cmd := &cobra.Command{
		Use:     "serve",
		Short:   "Run a collector for as long as somebody is connected to it",
		Example: "  orb8 trace serve --receiver ebpf_network",
		Hidden:  true,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := net.Listen("tcp", listen)
			if err != nil {
				return fmt.Errorf("cannot listen at %s: %w", listen, err)
			}
			inside, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return err
			}
			address := inside.Addr().String()
			inside.Close()
			c, err := startCollector(receiver, address, os.Getenv("NODE_NAME"), os.Getenv("ORB8_TRACE_NAMES"))
			if err != nil {
				return err
			}
			defer c.stop()
			relay := &relay{listener: l, to: address, first: firstWithin, idle: idleAtMost, silent: silentAtMost}
			if err := relay.run(cmd.Context(), c.done); err != nil {
				return fmt.Errorf("%w%s", err, c.said())
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&receiver, "receiver", networkReceiver, "`RECEIVER` that sees what is traced")
	cmd.Flags().StringVar(&listen, "listen", defaultAgent, "where clients connect, as `HOST:PORT`")
	return cmd
}

// relay passes connections on, and ends when there has been none for a while: whoever opened them is gone then, however that came.
type relay struct {
	listener net.Listener
	to       string
	// first is how long it waits for the first connection, idle for the next; silent is how long a connection may bring nothing.
	first, idle, silent time.Duration

	mu   sync.Mutex
	open int
	// since is when the last connection ended.
	since time.Time
	once  bool
}

// run returns when nobody is there, or nil when ctx ends; an error when what it passes connections on to is gone.
func (r *relay) run(ctx context.Context, gone <-chan struct{}) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r.since = time.Now()
	var connections sync.WaitGroup
	defer connections.Wait()
	connections.Go(func() {
		for {
			conn, err := r.listener.Accept()
			if err != nil {
				return // it was closed
			}
			r.count(1)
			connections.Go(func() {
				defer r.count(-1)
				r.pass(ctx, conn)
			})
		}
	})
	defer r.listener.Close()
	defer cancel()
	for {
		wait := r.left()
		if wait <= 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-gone:
			return errors.New("the collector has ended")
		case <-time.After(min(wait, r.idle)): // what it waits for may have changed
		}
	}
}

func (r *relay) count(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open += n
	r.since = time.Now()
	r.once = true
}

// left is how long it still waits.
func (r *relay) left() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	limit := r.idle
	if !r.once {
		limit = r.first
	}
	if r.open > 0 {
		return limit
	}
	return time.Until(r.since.Add(limit))
}

// pass copies both ways until either side ends, or the client is silent.
func (r *relay) pass(ctx context.Context, client net.Conn) {
	defer client.Close()
	server, err := (&net.Dialer{}).DialContext(ctx, "tcp", r.to)
	if err != nil {
		return // the client tries again
	}
	defer server.Close()
	defer context.AfterFunc(ctx, func() {
		client.Close()
		server.Close()
	})()
	var answers sync.WaitGroup
	answers.Go(func() {
		_, _ = io.Copy(client, server) // the end of either is the end of both
		client.Close()
	})
	buf := make([]byte, 16<<10)
	for {
		if err := client.SetReadDeadline(time.Now().Add(r.silent)); err != nil {
			break
		}
		n, err := client.Read(buf)
		if n > 0 {
			if _, err := server.Write(buf[:n]); err != nil {
				break
			}
		}
		if err != nil {
			break
		}
	}
	client.Close()
	server.Close()
	answers.Wait()
}
