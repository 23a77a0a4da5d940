//go:build linux

package workload

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// Feeder does what a program does that feeds a GPU: by turns it fetches from a peer, writes files to disk and computes, in one thread and
// by blocking calls, as most such programs do.
type Feeder struct {
	// Peer is a SlowPeer's address.
	Peer string
	// Dir is where the file is written.
	Dir string
	// Fetch, Write and Compute say how long each turn is; those of 0 are left out.
	Fetch, Write, Compute time.Duration
	// For is how long all turns are in all.
	For time.Duration
}

const (
	// answerSize is what a SlowPeer sends for each request, answerDelay when.
	answerSize  = 64 << 10
	answerDelay = 50 * time.Millisecond
)

// SlowPeer is a server in the test's own process that takes its time with each answer. It returns where it listens.
func SlowPeer(t testing.TB) string {
	t.Helper()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, listener.Close()) })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return // closed
			}
			go answer(conn)
		}
	}()
	return listener.Addr().String()
}

// answer answers each byte of a connection, until its client is gone.
func answer(conn net.Conn) {
	defer conn.Close()
	for {
		if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
			return
		}
		time.Sleep(answerDelay)
		if _, err := conn.Write(make([]byte, answerSize)); err != nil {
			return
		}
	}
}

func (f *Feeder) run() error {
	peer, err := netip.ParseAddrPort(f.Peer)
	if err != nil {
		return err
	}
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(socket)
	if err := unix.Connect(socket, &unix.SockaddrInet4{Port: int(peer.Port()), Addr: peer.Addr().As4()}); err != nil {
		return fmt.Errorf("cannot connect to %s: %w", peer, err)
	}
	file, err := os.CreateTemp(f.Dir, "feeder-")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	defer file.Close()
	turns := []struct {
		length time.Duration
		work   func() error
	}{
		{f.Fetch, func() error { return fetch(socket) }},
		{f.Write, func() error { return write(int(file.Fd())) }},
		{f.Compute, compute},
	}
	for end := time.Now().Add(f.For); time.Now().Before(end); {
		for _, turn := range turns {
			for over := time.Now().Add(turn.length); time.Now().Before(over) && time.Now().Before(end); {
				if err := turn.work(); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// fetch asks the peer once and reads all of its answer.
func fetch(socket int) error {
	if _, err := unix.SendmsgN(socket, []byte{'?'}, nil, nil, 0); err != nil {
		return fmt.Errorf("cannot ask: %w", err)
	}
	buffer := make([]byte, answerSize)
	for rest := answerSize; rest > 0; {
		n, _, err := unix.Recvfrom(socket, buffer[:rest], 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return fmt.Errorf("cannot read the answer, %d bytes short: %w", rest, err)
		}
		rest -= n
	}
	return nil
}

// write writes a record in place, and waits until the disk has it.
func write(fd int) error {
	if _, err := unix.Pwrite(fd, make([]byte, 1<<20), 0); err != nil {
		return err
	}
	return unix.Fsync(fd)
}

// compute works for some milliseconds, then asks the kernel one small thing, as programs do.
func compute() error {
	sum := uint64(0)
	for range 1_000_000 {
		sum += rand.Uint64()
	}
	if unix.Getppid() == int(sum) {
		return fmt.Errorf("%d is an unlikely sum", sum)
	}
	return nil
}
