package orb8queryextension

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
)

// errFull is that nobody can be let in, errFullForClient that this client has as much as one may. Neither says what of.
var (
	errFull          = errors.New("no room")
	errFullForClient = errors.New("no room for this client")
)

// gate lets so many calls in at once, and so many wait for their turn; who comes then is told at once, rather than that all wait until
// nobody wants the answer any more. One client takes only a part of either, so that others have theirs.
type gate struct {
	limit, perClient       int
	queue, queuedPerClient int

	mu      sync.Mutex
	in      int
	clients map[string]*guest
	// waiting are in the order in which they came.
	waiting []*waiter
}

// guest is a client, for as long as it has calls.
type guest struct {
	in, waiting int
}

type waiter struct {
	client string
	// admitted is closed, under the gate's lock, when it is the waiter's turn.
	admitted chan struct{}
}

// newQueryGate lets one client have half of the queries, and half of the queue.
func newQueryGate(queries, queued int) *gate {
	return &gate{
		limit: queries, perClient: max(1, queries/2), queue: queued, queuedPerClient: (queued + 1) / 2, clients: map[string]*guest{},
	}
}

// newStreamGate has no queue: a live feed has no end to wait for.
func newStreamGate(streams, perClient int) *gate {
	return &gate{limit: streams, perClient: perClient, clients: map[string]*guest{}}
}

// clientOf is by what a client is known: its address without the port.
func clientOf(peer string) string {
	if addr, err := netip.ParseAddrPort(peer); err == nil {
		return addr.Addr().Unmap().WithZone("").String()
	}
	return peer
}

// enter waits for a turn, which ends with leave. It returns errFull, errFullForClient, or ctx.Err() when ctx ends first.
func (g *gate) enter(ctx context.Context, client string) (leave func(), err error) {
	w, err := g.arrive(client)
	if err != nil {
		return nil, err
	}
	select {
	case <-w.admitted:
	case <-ctx.Done():
		if !g.giveUp(w) {
			// It was its turn at the same moment.
			g.leave(client)
		}
		return nil, ctx.Err()
	}
	return sync.OnceFunc(func() { g.leave(client) }), nil
}

// arrive lets a call in, or into the queue.
func (g *gate) arrive(client string) (*waiter, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	who := g.clients[client]
	if who == nil {
		who = &guest{}
	}
	w := &waiter{client: client, admitted: make(chan struct{})}
	switch {
	case g.in < g.limit && who.in < g.perClient:
		g.in++
		who.in++
		close(w.admitted)
	case len(g.waiting) < g.queue && who.waiting < g.queuedPerClient:
		who.waiting++
		g.waiting = append(g.waiting, w)
	case who.in >= g.perClient && len(g.waiting) < max(g.queue, 1):
		return nil, errFullForClient
	default:
		return nil, errFull
	}
	g.clients[client] = who
	return w, nil
}

// giveUp returns false if it is the waiter's turn.
func (g *gate) giveUp(w *waiter) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	at := slices.Index(g.waiting, w)
	if at < 0 {
		return false
	}
	g.waiting = slices.Delete(g.waiting, at, at+1)
	g.clients[w.client].waiting--
	g.forget(w.client)
	return true
}

func (g *gate) leave(client string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.in--
	g.clients[client].in--
	for i := 0; i < len(g.waiting) && g.in < g.limit; {
		w := g.waiting[i]
		who := g.clients[w.client]
		if who.in >= g.perClient {
			i++
			continue
		}
		g.in++
		who.in++
		who.waiting--
		g.waiting = slices.Delete(g.waiting, i, i+1)
		close(w.admitted)
	}
	g.forget(client)
}

// forget forgets a client that has no calls.
func (g *gate) forget(client string) {
	if *g.clients[client] == (guest{}) {
		delete(g.clients, client)
	}
}
