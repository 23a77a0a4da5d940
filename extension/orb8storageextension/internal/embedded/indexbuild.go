package embedded

import (
	"container/heap"
	"errors"
	"slices"

	"github.com/orb8/orb8/extension/orb8storageextension/internal/block"
	"github.com/orb8/orb8/internal/flow"
)

// merged puts dictionaries together, and says which of its words each of them has.
type merged struct {
	words
	stringAt   map[string]uint32
	identityAt map[flow.Identity]uint32
}

func newMerged() *merged {
	return &merged{stringAt: map[string]uint32{}, identityAt: map[flow.Identity]uint32{}}
}

// renaming says which word of the whole each word of a part is.
type renaming struct{ strings, identities []uint32 }

func (m *merged) add(w *words) renaming {
	r := renaming{make([]uint32, len(w.strings)), make([]uint32, len(w.identities))}
	for i, s := range w.strings {
		at, known := m.stringAt[s]
		if !known {
			at = uint32(len(m.strings))
			m.strings = append(m.strings, s)
			m.stringAt[s] = at
		}
		r.strings[i] = at
	}
	for i := range w.identities {
		who := w.identities[i]
		at, known := m.identityAt[who]
		if !known {
			for _, s := range identityWords(&who) {
				// A part may have an identity without having its strings.
				if _, known := m.stringAt[*s]; !known {
					m.stringAt[*s] = uint32(len(m.strings))
					m.strings = append(m.strings, *s)
				}
			}
			at = uint32(len(m.identities))
			m.identities = append(m.identities, who)
			m.identityAt[who] = at
		}
		r.identities[i] = at
	}
	return r
}

func (r *renaming) rename(row *row) {
	row.node, row.interfaces, row.peerName = r.strings[row.node], r.strings[row.interfaces], r.strings[row.peerName]
	row.sourceID, row.destinationID = r.identities[row.sourceID], r.identities[row.destinationID]
}

// indexViews writes an index of the rows of views.
func indexViews(path string, views []view, pause func()) error {
	type place struct {
		flow      uint64
		view, row uint32
	}
	all := newMerged()
	renamings := make([]renaming, len(views))
	var places []place
	for i := range views {
		v := &views[i]
		renamings[i] = all.add(&v.words)
		for j := range v.rows {
			places = append(places, place{v.rows[j].sameFlow(), uint32(i), uint32(j)})
		}
	}
	slices.SortStableFunc(places, func(a, b place) int {
		return compareRows(&views[a.view].rows[a.row], &views[b.view].rows[b.row], a.flow, b.flow)
	})
	x, err := newIndexWriter(path, all.words, pause)
	if err != nil {
		return err
	}
	for _, p := range places {
		v := &views[p.view]
		r := v.rows[p.row]
		var h *health
		if r.health != 0 {
			h = &v.health[r.health-1]
		}
		renamings[p.view].rename(&r)
		x.add(&r, h, p.flow)
	}
	return x.finish()
}

// cursorRow is where a merge is in one of its indexes.
type cursorRow struct {
	row  row
	flow uint64
	// health is that of row; hasHealth tells whether there is one.
	health    health
	hasHealth bool
}

// rowCursor goes through the rows of an index.
type rowCursor struct {
	index    *index
	renaming renaming
	page     int
	rows     []cursorRow
	at       int
	number   int
}

// load reads the next page; false is the end.
func (c *rowCursor) load() (bool, error) {
	if c.page == c.index.pages() {
		return false, nil
	}
	c.rows, c.at = c.rows[:0], 0
	err := faults(func() error {
		return c.index.read(uint32(c.page), func(r *row, h *health) {
			next := cursorRow{row: *r, flow: r.sameFlow()}
			if h != nil {
				next.health, next.hasHealth = *h, true
			}
			c.renaming.rename(&next.row)
			c.rows = append(c.rows, next)
		})
	})
	c.page++
	return err == nil, err
}

// rowCursors is a heap of cursors, the least row first; of equal ones, the older index.
type rowCursors []*rowCursor

func (h rowCursors) Len() int      { return len(h) }
func (h rowCursors) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h rowCursors) Less(i, j int) bool {
	a, b := &h[i].rows[h[i].at], &h[j].rows[h[j].at]
	if c := compareRows(&a.row, &b.row, a.flow, b.flow); c != 0 {
		return c < 0
	}
	return h[i].number < h[j].number
}
func (h *rowCursors) Push(c any) { *h = append(*h, c.(*rowCursor)) }
func (h *rowCursors) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

// mergeIndexes writes an index of the rows of several. It holds a page of each.
func mergeIndexes(path string, parts []*index, pause func()) error {
	all := newMerged()
	var shared lexicon
	var cursors rowCursors
	for i, part := range parts {
		w, err := part.decodeWords(shared.share)
		if err != nil {
			return err
		}
		c := &rowCursor{index: part, renaming: all.add(&w), number: i}
		more, err := c.load()
		if err != nil {
			return err
		}
		if more {
			cursors = append(cursors, c)
		}
	}
	x, err := newIndexWriter(path, all.words, pause)
	if err != nil {
		return err
	}
	if err := x.merge(cursors); err != nil {
		return errors.Join(err, x.abort())
	}
	return x.finish()
}

func (x *indexWriter) merge(cursors rowCursors) error {
	heap.Init(&cursors)
	for len(cursors) > 0 {
		c := cursors[0]
		next := &c.rows[c.at]
		var h *health
		if next.hasHealth {
			h = &next.health
		}
		x.add(&next.row, h, next.flow)
		if c.at++; c.at < len(c.rows) {
			heap.Fix(&cursors, 0)
			continue
		}
		more, err := c.load()
		if err != nil {
			return err
		}
		if more {
			heap.Fix(&cursors, 0)
		} else {
			heap.Pop(&cursors)
		}
	}
	return nil
}

// indexBlock writes an index of a block that has none: in parts, and then of those, so that it does not take the memory of all.
func indexBlock(path string, f *block.File, pause func()) (err error) {
	const partRows = 1 << 17
	var parts []*index
	defer func() {
		for _, part := range parts {
			err = errors.Join(err, part.discard())
		}
	}()
	var views []view
	var held int
	flush := func() error {
		name := path + "." + string(rune('a'+len(parts))) + ".tmp"
		if err := indexViews(name, views, pause); err != nil {
			return err
		}
		rows := uint64(held)
		views, held = nil, 0
		part, err := openIndex(name, rows, &lexicon{})
		if err != nil {
			return err
		}
		parts = append(parts, part)
		return nil
	}
	for _, g := range f.Groups() {
		v, err := readFlows(g)
		if err != nil {
			return err
		}
		if views, held = append(views, v), held+len(v.rows); held >= partRows {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if held > 0 {
		if err := flush(); err != nil {
			return err
		}
	}
	return mergeIndexes(path, parts, pause)
}
