package main

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// echo answers what it is told.
func echo(t *testing.T) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			}()
		}
	}()
	return l.Addr().String()
}

// serve runs a relay, and returns its address and its end.
func serve(t *testing.T, r *relay, gone <-chan struct{}) (address string, end <-chan error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	r.listener, r.to = l, echo(t)
	ended := make(chan error, 1)
	go func() { ended <- r.run(t.Context(), gone) }()
	return l.Addr().String(), ended
}

func awaitEnd(t *testing.T, end <-chan error) error {
	t.Helper()
	select {
	case err := <-end:
		return err
	case <-time.After(10 * time.Second):
		require.Fail(t, "it goes on")
		return nil
	}
}

func goesOn(t *testing.T, end <-chan error, d time.Duration) {
	t.Helper()
	select {
	case err := <-end:
		require.Fail(t, "it has ended", "%v", err)
	case <-time.After(d):
	}
}

func say(t *testing.T, conn net.Conn, what string) {
	t.Helper()
	_, err := conn.Write([]byte(what))
	require.NoError(t, err)
	answer := make([]byte, len(what))
	_, err = io.ReadFull(conn, answer)
	require.NoError(t, err)
	require.Equal(t, what, string(answer))
}

func TestRelayEndsWhenNobodyComes(t *testing.T) {
	_, end := serve(t, &relay{first: 50 * time.Millisecond, idle: time.Hour, silent: time.Hour}, nil)
	assert.NoError(t, awaitEnd(t, end))
}

func TestRelayEndsAfterTheLastConnection(t *testing.T) {
	address, end := serve(t, &relay{first: time.Hour, idle: 300 * time.Millisecond, silent: time.Hour}, nil)
	one, err := net.Dial("tcp", address)
	require.NoError(t, err)
	say(t, one, "a")
	two, err := net.Dial("tcp", address)
	require.NoError(t, err)
	say(t, two, "b")
	require.NoError(t, one.Close())
	goesOn(t, end, 900*time.Millisecond)
	say(t, two, "c")
	require.NoError(t, two.Close())
	assert.NoError(t, awaitEnd(t, end))
	_, err = net.Dial("tcp", address)
	assert.Error(t, err)
}

// TestRelayEndsAfterSilence holds that a connection whose other end is gone without a word does not keep it.
func TestRelayEndsAfterSilence(t *testing.T) {
	address, end := serve(t, &relay{first: time.Hour, idle: 50 * time.Millisecond, silent: 600 * time.Millisecond}, nil)
	conn, err := net.Dial("tcp", address)
	require.NoError(t, err)
	defer conn.Close()
	for range 4 {
		say(t, conn, "still here")
		goesOn(t, end, 300*time.Millisecond)
	}
	assert.NoError(t, awaitEnd(t, end))
}

func TestRelayEndsWithTheCollector(t *testing.T) {
	gone := make(chan struct{})
	address, end := serve(t, &relay{first: time.Hour, idle: time.Hour, silent: time.Hour}, gone)
	conn, err := net.Dial("tcp", address)
	require.NoError(t, err)
	defer conn.Close()
	say(t, conn, "a")
	close(gone)
	assert.EqualError(t, awaitEnd(t, end), "the collector has ended")
}
