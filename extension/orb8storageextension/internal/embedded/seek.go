package embedded

import (
	"context"
	"errors"
	"math/bits"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/storage"
)

// keys are hashes of flows and connections, each with the round of a seek that found it, counted from 1.
type keys struct {
	slots  []uint64
	rounds []uint8
	n      int
}

func newKeys(n int) keys {
	size := 1 << bits.Len(uint(max(2*n, 512)))
	return keys{slots: make([]uint64, size), rounds: make([]uint8, size)}
}

// round returns the round in which a hash was found; 0 is never.
func (k *keys) round(h uint64) uint8 {
	mask := uint64(len(k.slots) - 1)
	for i := h & mask; ; i = (i + 1) & mask {
		if k.rounds[i] == 0 {
			return 0
		}
		if k.slots[i] == h {
			return k.rounds[i]
		}
	}
}

// add notes a hash that a round found, and tells whether it is new.
func (k *keys) add(h uint64, round uint8) bool {
	if 2*k.n >= len(k.slots) {
		bigger := newKeys(2 * k.n)
		for i, round := range k.rounds {
			if round != 0 {
				bigger.add(k.slots[i], round)
			}
		}
		*k = bigger
	}
	mask := uint64(len(k.slots) - 1)
	for i := h & mask; ; i = (i + 1) & mask {
		if k.rounds[i] == 0 {
			k.slots[i], k.rounds[i] = h, round
			k.n++
			return true
		}
		if k.slots[i] == h {
			return false
		}
	}
}

// source is where a seek finds rows: a block with its index, or rows in memory.
type source interface {
	// seeds returns the hashes of the rows that a clue is of, and how many rows those are.
	seeds(s *seek) (hashes []uint64, rows uint64, err error)
	// take takes the rows whose hashes were first found in a round: fresh has those. It returns other hashes of these rows.
	take(s *seek, fresh []uint64, round uint8) (hashes []uint64, err error)
	// taken adds what was taken to an aggregation, count tells how much that is.
	taken(a *aggregation)
	count() int
}

// maxRounds is more than a seek takes: a flow, its other end, and what has the addresses of that. Addresses and ports that are used
// again and again may lead further, to rows that no answer needs.
const maxRounds = 6

// seek finds the rows of the flows that a selection may match, and all that is needed to sum and join them: what has the same
// addresses, and what is of the same connection.
type seek struct {
	since, until int64
	clues        []storage.Clue
	keys         keys
	// kept are the rows that were taken with the seeds, of which there are to be no more than maxKept, unless that is 0.
	kept    atomic.Int64
	maxKept int64
}

func (s *seek) mayKeep() bool { return s.maxKept == 0 || s.kept.Load() < s.maxKept }

// identities returns for each identity whether a clue is of it.
func (s *seek) identities(all []flow.Identity) []bool {
	is := make([]bool, len(all))
	for i := range all {
		is[i] = slices.ContainsFunc(s.clues, func(c storage.Clue) bool { return c.Identity != nil && c.Identity(&all[i]) })
	}
	return is
}

func (s *seek) address(a [16]byte) bool {
	addr := netip.AddrFrom16(a).Unmap()
	return slices.ContainsFunc(s.clues, func(c storage.Clue) bool { return c.Address != nil && c.Address(addr) })
}

// byAddress tells whether a clue is of addresses.
func (s *seek) byAddress() bool {
	return slices.ContainsFunc(s.clues, func(c storage.Clue) bool { return c.Address != nil })
}

// in tells whether a row is in the range.
func (s *seek) in(r *row) bool { return r.end >= s.since && r.start < s.until }

// first returns the round in which the earlier of a row's hashes was found.
func (s *seek) first(flow, connection uint64) uint8 {
	round := s.keys.round(flow)
	if connection != 0 {
		if other := s.keys.round(connection); other != 0 && (round == 0 || other < round) {
			return other
		}
	}
	return round
}

// eachView hands all rows to a function, some at a time.
func (x *index) eachView(ctx context.Context, use func(*view)) error {
	w, err := x.lexicon.of(x)
	if err != nil {
		return &indexError{x, err}
	}
	for page := uint32(0); page < uint32(x.pages()); {
		if err := ctx.Err(); err != nil {
			return err
		}
		v := &view{words: *w, rows: make([]row, 0, batchRows*4)}
		if err := faults(func() error {
			for ; page < uint32(x.pages()) && len(v.rows) < cap(v.rows); page++ {
				if err := x.read(page, v.append); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			return &indexError{x, err}
		}
		use(v)
	}
	return nil
}

// append adds a row, whose words are those of the view.
func (v *view) append(r *row, h *health) {
	v.rows = append(v.rows, *r)
	if h != nil {
		v.health = append(v.health, *h)
		v.rows[len(v.rows)-1].health = uint32(len(v.health))
	}
}

// viewSource is rows in memory.
type viewSource struct {
	view   *view
	places []uint32
}

func (v *viewSource) seeds(s *seek) (hashes []uint64, rows uint64, err error) {
	is := s.identities(v.view.identities)
	byAddress := s.byAddress()
	if !byAddress && !slices.Contains(is, true) {
		return nil, 0, nil
	}
	for i := range v.view.rows {
		r := &v.view.rows[i]
		if !is[r.sourceID] && !is[r.destinationID] && !(byAddress && (s.address(r.source) || s.address(r.destination))) || !s.in(r) {
			continue
		}
		hashes = append(hashes, r.sameFlow())
		if connection := v.view.connection(r); connection != 0 {
			hashes = append(hashes, connection)
		}
	}
	return hashes, 0, nil
}

func (v *view) connection(r *row) uint64 {
	if r.health == 0 {
		return 0
	}
	return connectionOf(&v.health[r.health-1])
}

func (v *viewSource) take(s *seek, _ []uint64, round uint8) (hashes []uint64, err error) {
	for i := range v.view.rows {
		r := &v.view.rows[i]
		if !s.in(r) {
			continue
		}
		flow, connection := r.sameFlow(), v.view.connection(r)
		if s.first(flow, connection) != round {
			continue
		}
		v.places = append(v.places, uint32(i))
		if s.keys.round(flow) == 0 {
			hashes = append(hashes, flow)
		}
		if connection != 0 && s.keys.round(connection) == 0 {
			hashes = append(hashes, connection)
		}
	}
	return hashes, nil
}

func (v *viewSource) count() int { return len(v.places) }

func (v *viewSource) taken(a *aggregation) {
	slices.Sort(v.places)
	a.addRows(v.view, v.places)
}

// workers is how many goroutines a query has.
const workers = 2

// run finds the rows. Of the sources, which are oldest first, the oldest blocks are left out that would bring more than so many
// rows, unless that is 0; skipped are the sources that are.
func (s *seek) run(ctx context.Context, sources []source, maxRows uint64) (skipped int, err error) {
	found := make([][]uint64, len(sources))
	rows := make([]uint64, len(sources))
	s.maxKept = int64(maxRows)
	if err := inParallel(ctx, sources, func(i int) (err error) {
		i = len(sources) - 1 - i // the newest are not left out
		found[i], rows[i], err = sources[i].seeds(s)
		return err
	}); err != nil {
		return 0, err
	}
	if maxRows > 0 {
		var sum uint64
		for i, n := range slices.Backward(rows) {
			// What the other ends saw comes with it.
			if sum += 2 * n; sum > maxRows && sum > 2*n {
				skipped = i + 1
				break
			}
		}
		found, sources = found[skipped:], sources[skipped:]
	}
	var n int
	for _, hashes := range found {
		n += len(hashes)
	}
	s.keys = newKeys(n)
	for round := uint8(1); round <= maxRounds; round++ {
		var fresh []uint64
		for _, hashes := range found {
			for _, h := range hashes {
				if s.keys.add(h, round) {
					fresh = append(fresh, h)
				}
			}
		}
		if len(fresh) == 0 {
			break
		}
		// In their order, a table of hashes is gone through once, instead of here and there.
		slices.Sort(fresh)
		found = make([][]uint64, len(sources))
		if err := inParallel(ctx, sources, func(i int) (err error) {
			found[i], err = sources[i].take(s, fresh, round)
			return err
		}); err != nil {
			return skipped, err
		}
	}
	return skipped, nil
}

// inParallel does something with each source, on as many goroutines as a query has.
func inParallel(ctx context.Context, sources []source, do func(i int) error) error {
	var next atomic.Int64
	errs := make([]error, workers)
	var running sync.WaitGroup
	for w := range workers {
		running.Go(func() {
			for errs[w] == nil {
				i := int(next.Add(1)) - 1
				if i >= len(sources) {
					return
				}
				if errs[w] = ctx.Err(); errs[w] == nil {
					errs[w] = do(i)
				}
			}
		})
	}
	running.Wait()
	return errors.Join(errs...)
}
