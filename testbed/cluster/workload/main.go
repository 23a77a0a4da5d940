//go:build linux

// Command workload is what the pods of the test bed's cluster run: servers and clients whose traffic is known.
//
//	workload pause                                 waits to be ended; holds the namespaces of a pod
//	workload serve 8080-8089                       answers on TCP ports what it is sent
//	workload call -every=1s -for=10s HOST:PORT...  connects again and again
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "workload:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New("want pause, serve or call")
	}
	switch args[0] {
	case "pause":
		<-ctx.Done()
		return nil
	case "serve":
		return serve(ctx, args[1:])
	case "call":
		return call(ctx, args[1:])
	}
	return fmt.Errorf("unknown command %q: want pause, serve or call", args[0])
}

// serve listens on ranges of ports. It closes a connection after the client has.
func serve(ctx context.Context, ranges []string) error {
	var handlers sync.WaitGroup
	defer handlers.Wait()
	for _, r := range ranges {
		first, last, err := parseRange(r)
		if err != nil {
			return err
		}
		for port := first; port <= last; port++ {
			l, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
			if err != nil {
				return err
			}
			context.AfterFunc(ctx, func() { _ = l.Close() })
			handlers.Go(func() {
				for {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					handlers.Go(func() {
						defer conn.Close()
						defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
						_, _ = io.Copy(conn, conn) // an end in the middle is the client's to tell
					})
				}
			})
		}
	}
	fmt.Println("ready")
	<-ctx.Done()
	return nil
}

func parseRange(s string) (first, last uint64, err error) {
	low, high, ok := strings.Cut(s, "-")
	if !ok {
		high = low
	}
	if first, err = strconv.ParseUint(low, 10, 16); err != nil {
		return 0, 0, err
	}
	last, err = strconv.ParseUint(high, 10, 16)
	return first, last, err
}

// call connects to each address in turn, sends a little and reads it back. Servers that are not there yet are no error;
// one that never was is.
func call(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("call", flag.ContinueOnError)
	every := flags.Duration("every", time.Second, "time between two rounds")
	length := flags.Duration("for", 0, "how long to go on; 0 is for ever")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *length > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, *length)
		defer cancel()
	}
	failed := map[string]error{}
	for _, address := range flags.Args() {
		failed[address] = errors.New("was not called")
	}
	for tick := time.NewTicker(*every); ; {
		for _, address := range flags.Args() {
			local, err := exchange(ctx, address)
			if err != nil {
				if failed[address] != nil {
					failed[address] = err
				}
				continue
			}
			failed[address] = nil
			fmt.Printf("%s %s\n", local, address)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			var errs []error
			for address, err := range failed {
				if err != nil {
					errs = append(errs, fmt.Errorf("%s: %w", address, err))
				}
			}
			return errors.Join(errs...)
		}
	}
}

// exchange returns the client's address.
func exchange(ctx context.Context, address string) (net.Addr, error) {
	dialer := net.Dialer{Timeout: 2 * time.Second}
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return nil, err
	}
	const question = "who calls?\n"
	if _, err := io.WriteString(conn, question); err != nil {
		return nil, err
	}
	answer := make([]byte, len(question))
	if _, err := io.ReadFull(conn, answer); err != nil {
		return nil, err
	}
	if string(answer) != question {
		return nil, fmt.Errorf("got %q back for %q", answer, question)
	}
	return conn.LocalAddr(), nil
}
