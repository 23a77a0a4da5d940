package embedded

import (
	"math/bits"
	"slices"
)

// blockSource is a block with its index.
type blockSource struct {
	index *index
	view  view
	// places are where the rows of view are in the index.
	places []uint32
	// Rows that were taken when the seeds were read, so that their pages need not be read again: on these pages, all that have one of
	// these hashes. Ranks are how many pages there are before each word of the set, and ends where each one's hashes end.
	seeded []uint64
	pages  pageSet
	ranks  []uint32
	ends   []uint32
}

// pageSet is a set of pages.
type pageSet []uint64

func (p pageSet) add(page uint32)      { p[page/64] |= 1 << (page % 64) }
func (p pageSet) has(page uint32) bool { return p[page/64]&(1<<(page%64)) != 0 }

func (p pageSet) each(use func(page uint32) error) error {
	for i, word := range p {
		for ; word != 0; word &= word - 1 {
			if err := use(uint32(i*64 + bits.TrailingZeros64(word))); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *blockSource) guarded(do func() error) error {
	if err := faults(do); err != nil {
		return &indexError{b.index, err}
	}
	return nil
}

// indexError says that an index cannot be read.
type indexError struct {
	index *index
	err   error
}

func (e *indexError) Error() string {
	return "cannot read the index " + e.index.path + ": " + e.err.Error()
}
func (e *indexError) Unwrap() error { return e.err }

func connectionOf(h *health) uint64 {
	if h == nil || h.isns == 0 {
		return 0
	}
	return sameConnection(h.isns)
}

func (b *blockSource) seeds(s *seek) (hashes []uint64, rows uint64, err error) {
	x := b.index
	w, err := x.lexicon.of(x)
	if err != nil {
		return nil, 0, &indexError{x, err}
	}
	b.view.words = *w
	err = b.guarded(func() error {
		pages := make(pageSet, (x.pages()+63)/64)
		is := s.identities(w.identities)
		for i, is := range is {
			if is {
				x.posting(i, pages.add)
			}
		}
		byAddress := s.byAddress()
		if byAddress {
			for i := range len(x.addresses) / 16 {
				if s.address([16]byte(x.addresses[16*i:])) {
					x.posting(x.identities+i, pages.add)
				}
			}
		}
		if !s.mayKeep() {
			var page seededPage
			err := pages.each(func(at uint32) error {
				if err := page.read(s, x, at, is, byAddress); err != nil {
					return err
				}
				rows += uint64(page.matched)
				hashes = append(hashes, page.hashes...)
				return nil
			})
			return err
		}
		hashes, rows, err = b.keep(s, pages, is, byAddress)
		s.kept.Add(int64(len(b.places)))
		return err
	})
	return hashes, rows, err
}

// rowsOnAPage is how many rows of a page are of what is asked for, about: the two ends of a connection, and some pages have more.
const rowsOnAPage = 3

// keep reads the pages that may have seeds, and takes the rows with the hashes of those on the same page.
func (b *blockSource) keep(s *seek, pages pageSet, is []bool, byAddress bool) (hashes []uint64, rows uint64, err error) {
	b.pages, b.ranks = pages, make([]uint32, len(pages))
	var n int
	for i, word := range pages {
		b.ranks[i] = uint32(n)
		n += bits.OnesCount64(word)
	}
	b.ends, b.seeded = make([]uint32, 0, n), make([]uint64, 0, rowsOnAPage*n)
	b.places, b.view.rows, b.view.health = make([]uint32, 0, rowsOnAPage*n), make([]row, 0, rowsOnAPage*n), make([]health, 0, rowsOnAPage*n)
	var page seededPage
	// What is of a row that was taken for one of its hashes, and has another one.
	var others []uint64
	err = pages.each(func(at uint32) error {
		if err := page.read(s, b.index, at, is, byAddress); err != nil {
			return err
		}
		rows += uint64(page.matched)
		b.seeded = append(b.seeded, page.hashes...)
		b.ends = append(b.ends, uint32(len(b.seeded)))
		for i := range page.rows[:page.n] {
			r := &page.rows[i]
			if !r.is {
				if !r.hasAny(page.hashes) {
					continue
				}
				others = append(others, r.flow)
				if r.connection != 0 {
					others = append(others, r.connection)
				}
			}
			b.places = append(b.places, r.place)
			b.view.append(&r.row, r.healthOf())
		}
		return nil
	})
	return append(slices.Clip(b.seeded), others...), rows, err
}

// seededOn returns the hashes of which all rows on a page were taken with the seeds.
func (b *blockSource) seededOn(page uint32) []uint64 {
	if b.pages == nil || !b.pages.has(page) {
		return nil
	}
	rank := b.ranks[page/64] + uint32(bits.OnesCount64(b.pages[page/64]&(1<<(page%64)-1)))
	var from uint32
	if rank > 0 {
		from = b.ends[rank-1]
	}
	return b.seeded[from:b.ends[rank]]
}

// pageRow is a row of a page that is read.
type pageRow struct {
	row              row
	health           health
	hasHealth, is    bool
	place            uint32
	flow, connection uint64
}

func (r *pageRow) healthOf() *health {
	if !r.hasHealth {
		return nil
	}
	return &r.health
}

func (r *pageRow) hasAny(hashes []uint64) bool {
	return slices.Contains(hashes, r.flow) || r.connection != 0 && slices.Contains(hashes, r.connection)
}

// seededPage is a page that may have seeds: rows that a clue is of.
type seededPage struct {
	reader pageReader
	rows   [pageRows]pageRow
	// n is how many rows are in the range, matched of how many of those a clue is, and hashes what these have, each once.
	n, matched int
	hashes     []uint64
}

func (p *seededPage) read(s *seek, x *index, page uint32, is []bool, byAddress bool) error {
	p.n, p.matched, p.hashes = 0, 0, p.hashes[:0]
	place := page * pageRows
	if err := x.readWith(&p.reader, page, func(r *row, h *health) {
		place++
		if !s.in(r) {
			return
		}
		to := &p.rows[p.n]
		p.n++
		to.row, to.place, to.hasHealth = *r, place, h != nil
		if h != nil {
			to.health = *h
		}
		to.is = is[r.sourceID] || is[r.destinationID] || byAddress && (s.address(r.source) || s.address(r.destination))
		if to.is {
			p.matched++
		}
	}); err != nil || p.matched == 0 {
		p.n = min(p.n, p.matched)
		return err
	}
	for i := range p.rows[:p.n] {
		r := &p.rows[i]
		r.flow, r.connection = r.row.sameFlow(), connectionOf(r.healthOf())
		if !r.is {
			continue
		}
		if !slices.Contains(p.hashes, r.flow) {
			p.hashes = append(p.hashes, r.flow)
		}
		if r.connection != 0 && !slices.Contains(p.hashes, r.connection) {
			p.hashes = append(p.hashes, r.connection)
		}
	}
	return nil
}

func (b *blockSource) take(s *seek, fresh []uint64, round uint8) (hashes []uint64, err error) {
	x := b.index
	err = b.guarded(func() error {
		pages := make(pageSet, (x.pages()+63)/64)
		for _, h := range fresh {
			x.find(h, func(page uint32) {
				if !slices.Contains(b.seededOn(page), h) {
					pages.add(page)
				}
			})
		}
		var reader pageReader
		return pages.each(func(page uint32) error {
			place, seeded := page*pageRows, b.seededOn(page)
			return x.readWith(&reader, page, func(r *row, h *health) {
				place++
				if !s.in(r) {
					return
				}
				flow, connection := r.sameFlow(), connectionOf(h)
				if s.first(flow, connection) != round || slices.Contains(seeded, flow) || connection != 0 && slices.Contains(seeded, connection) {
					return
				}
				b.places = append(b.places, place)
				b.view.append(r, h)
				if s.keys.round(flow) == 0 {
					hashes = append(hashes, flow)
				}
				if connection != 0 && s.keys.round(connection) == 0 {
					hashes = append(hashes, connection)
				}
			})
		})
	})
	return hashes, err
}

func (b *blockSource) taken(a *aggregation) {
	if slices.IsSorted(b.places) {
		a.add(&b.view)
		return
	}
	// A later round took rows that belong before those of an earlier one.
	order := make([]uint32, len(b.places))
	for i := range order {
		order[i] = uint32(i)
	}
	slices.SortFunc(order, func(i, j uint32) int { return int(b.places[i]) - int(b.places[j]) })
	a.addRows(&b.view, order)
}

func (b *blockSource) count() int { return len(b.places) }
