package orb8queryextension

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newQueryGate(4, 4)
		var leave []func()
		enter := func(client string) {
			l, err := g.enter(t.Context(), client)
			require.NoError(t, err)
			leave = append(leave, l)
		}
		enter("a")
		enter("a")
		admitted := make(chan string, 10)
		wait := func(client string) {
			go func() {
				l, err := g.enter(t.Context(), client)
				if assert.NoError(t, err) {
					admitted <- client
					l()
				}
			}()
			synctest.Wait()
		}
		wait("a")
		wait("a")
		assert.Empty(t, admitted, "half of the queries are one client's at most")
		_, err := g.enter(t.Context(), "a")
		assert.ErrorIs(t, err, errFullForClient, "and half of the queue")

		enter("b")
		enter("c")
		wait("b")
		wait("c")
		assert.Empty(t, admitted, "all run that may")
		_, err = g.enter(t.Context(), "d")
		assert.ErrorIs(t, err, errFull)

		leave[3]() // of c
		synctest.Wait()
		assert.Equal(t, "b", <-admitted, "the first that may: a has its half")
		assert.Equal(t, "c", <-admitted)
		leave[3]()
		assert.Empty(t, admitted, "a call leaves once")
		leave[0]()
		synctest.Wait()
		assert.Equal(t, "a", <-admitted)
		assert.Equal(t, "a", <-admitted)
		leave[1]()
		leave[2]()
		assert.Zero(t, g.in)
		assert.Empty(t, g.clients, "nobody is remembered")
	})
}

func TestGateOfStreamsHasNoQueue(t *testing.T) {
	g := newStreamGate(3, 2)
	for range 2 {
		_, err := g.enter(t.Context(), "a")
		require.NoError(t, err)
	}
	_, err := g.enter(t.Context(), "a")
	require.ErrorIs(t, err, errFullForClient)
	_, err = g.enter(t.Context(), "b")
	require.NoError(t, err)
	_, err = g.enter(t.Context(), "b")
	require.ErrorIs(t, err, errFull)
}

// Whoever gives up, and whenever, no more are in than may be, and in the end nobody is.
func TestGateUnderLoad(t *testing.T) {
	g := newQueryGate(4, 16)
	var in, most atomic.Int64
	var wg sync.WaitGroup
	for i := range 32 {
		client := string(rune('a' + i%8))
		wg.Go(func() {
			for range 200 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.IntN(200))*time.Microsecond)
				if leave, err := g.enter(ctx, client); err == nil {
					if n := in.Add(1); n > most.Load() {
						most.Store(n)
					}
					in.Add(-1)
					leave()
				}
				cancel()
			}
		})
	}
	wg.Wait()
	assert.LessOrEqual(t, most.Load(), int64(4))
	assert.Zero(t, g.in)
	assert.Empty(t, g.waiting)
	assert.Empty(t, g.clients)
}

func TestClientOf(t *testing.T) {
	for peer, want := range map[string]string{
		"10.0.0.1:5000": "10.0.0.1", "[::ffff:10.0.0.1]:5": "10.0.0.1", "[fe80::1%eth0]:5": "fe80::1", "@": "@", "": "",
	} {
		assert.Equal(t, want, clientOf(peer))
	}
}
