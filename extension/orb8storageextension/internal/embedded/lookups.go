package embedded

import (
	"bytes"
	"cmp"
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unsafe"

	"github.com/orb8/orb8/extension/orb8storageextension/internal/block"
	"github.com/orb8/orb8/extension/orb8storageextension/internal/journal"
	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/storage"
)

const (
	// lookupChunkRows is small because a lookup brings more words than a flow record does.
	lookupChunkRows = 512
	// lookupShare is the part of the store's memory that lookups may take: one in so many.
	lookupShare = 8
)

// lookupRow is a lookup without pointers, as row is a flow record.
type lookupRow struct {
	client, server         [16]byte
	time, latency          int64
	queries                uint64
	node, iface            uint32
	clientID, serverID     uint32
	name, kind, rcode      uint32
	answers                uint32 // one a line
	clientPort, serverPort uint16
	direction              flow.Direction
	transport              flow.Transport
	truncated, incomplete  bool
}

const lookupRowBytes = uint64(unsafe.Sizeof(lookupRow{}))

// lookupView is to a lookupChunk what view is to a chunk.
type lookupView struct {
	words
	rows []lookupRow
}

// lookupChunk is a run of lookups.
type lookupChunk struct {
	run
	rows []lookupRow
}

func newLookupChunk() *lookupChunk {
	return &lookupChunk{run: newRun(), rows: make([]lookupRow, 0, lookupChunkRows)}
}

func (c *lookupChunk) view() *lookupView { return &lookupView{words: c.words, rows: c.rows} }

func (c *lookupChunk) full() bool   { return len(c.rows) == lookupChunkRows }
func (c *lookupChunk) size() uint64 { return c.bytes + lookupChunkRows*lookupRowBytes }

func (c *lookupChunk) append(l *flow.Lookup, now int64) {
	at := l.Time.UnixNano()
	c.note(at, at, now)
	c.rows = append(c.rows, lookupRow{
		client:     l.Client.Addr.Addr().As16(),
		server:     l.Server.Addr.Addr().As16(),
		time:       at,
		latency:    int64(l.Latency),
		queries:    l.Queries,
		node:       c.stringID(l.Node),
		iface:      c.stringID(l.Interface),
		clientID:   c.identityID(l.Client.Identity),
		serverID:   c.identityID(l.Server.Identity),
		name:       c.stringID(l.Name),
		kind:       c.stringID(l.Type),
		rcode:      c.stringID(l.RCode),
		answers:    c.stringID(joinAnswers(l.Answers)),
		clientPort: l.Client.Addr.Port(),
		serverPort: l.Server.Addr.Port(),
		direction:  l.Direction,
		transport:  l.Transport,
		truncated:  l.Truncated,
		incomplete: l.Incomplete,
	})
}

// lookup decodes a row.
func (v *lookupView) lookup(i uint32) flow.Lookup {
	row := &v.rows[i]
	return flow.Lookup{
		Time:      time.Unix(0, row.time).UTC(),
		Node:      v.strings[row.node],
		Direction: row.direction,
		Transport: row.transport,
		Client: flow.Endpoint{
			Addr:     netip.AddrPortFrom(netip.AddrFrom16(row.client).Unmap(), row.clientPort),
			Identity: v.identities[row.clientID],
		},
		Server: flow.Endpoint{
			Addr:     netip.AddrPortFrom(netip.AddrFrom16(row.server).Unmap(), row.serverPort),
			Identity: v.identities[row.serverID],
		},
		Interface:  v.strings[row.iface],
		Name:       v.strings[row.name],
		Type:       v.strings[row.kind],
		RCode:      v.strings[row.rcode],
		Latency:    time.Duration(row.latency),
		Queries:    row.queries,
		Answers:    splitAnswers(v.strings[row.answers]),
		Truncated:  row.truncated,
		Incomplete: row.incomplete,
	}
}

func joinAnswers(answers []flow.Answer) string {
	var s strings.Builder
	for i := range answers {
		s.WriteString(answers[i].String())
		s.WriteByte('\n')
	}
	return s.String()
}

func splitAnswers(s string) []flow.Answer {
	var answers []flow.Answer
	for line := range strings.Lines(s) {
		// It was written by joinAnswers.
		answer, _ := flow.ParseAnswer(strings.TrimSuffix(line, "\n"))
		answers = append(answers, answer)
	}
	return answers
}

// WriteLookups is WriteFlows of lookups.
func (s *Store) WriteLookups(ctx context.Context, lookups []flow.Lookup) (fresh bool, err error) {
	return s.write(ctx, &journal.Batch{Kind: journal.Lookups, Lookups: lookups})
}

// QueryLookups answers a query; see storage.Reader.
func (s *Store) QueryLookups(ctx context.Context, query storage.LookupQuery) (storage.LookupResult, error) {
	done, err := s.turn(ctx)
	if err != nil {
		return storage.LookupResult{}, err
	}
	defer done()
	// found is where a matching lookup is.
	type found struct {
		time int64
		view *lookupView
		row  uint32
	}
	var all []found
	coverage, err := s.scanLookups(ctx, query.Since, query.Until, func(v *lookupView, i uint32) {
		if !query.Selection.Empty() {
			if l := v.lookup(i); !query.Selection.Match(&l) {
				return
			}
		}
		all = append(all, found{v.rows[i].time, v, i})
	})
	if err != nil {
		return storage.LookupResult{}, err
	}
	coverage.Matched = len(all)
	keyOf := func(f found) []byte {
		l := f.view.lookup(f.row)
		return storage.LookupKey(&l)
	}
	slices.SortFunc(all, func(a, b found) int {
		if c := cmp.Compare(b.time, a.time); c != 0 {
			return c
		}
		return bytes.Compare(keyOf(a), keyOf(b))
	})
	var first, end int
	first, end, coverage.Next, err = storage.Page(storage.SignalLookups, len(all), func(i int) []byte { return keyOf(all[i]) }, query.After, query.Limit)
	if err != nil {
		return storage.LookupResult{}, err
	}
	all = all[first:end]
	result := storage.LookupResult{Lookups: make([]flow.Lookup, len(all)), Coverage: coverage}
	for i, f := range all {
		result.Lookups[i] = f.view.lookup(f.row)
	}
	return result, nil
}

// scanLookups hands the lookups of a range to a function.
func (s *Store) scanLookups(ctx context.Context, from, to time.Time, use func(v *lookupView, i uint32)) (storage.Coverage, error) {
	now := s.settings.Now()
	since, until := s.bounds(now, from, to)
	coverage, files, views := note(s, &s.lookups, now, since, until, s.settings.MaxQueryRecords, (*node).flowReports, (*lookupChunk).view)
	defer free(files)
	useAll := func(v *lookupView) {
		for i := range v.rows {
			if at := v.rows[i].time; at >= since && at < until {
				use(v, uint32(i))
			}
		}
	}
	lost, err := s.readBlocks(ctx, "lookups", files, func(f *block.File) error {
		return readLookups(f, since, until, checked(ctx, func(c *lookupChunk) { useAll(c.view()) }))
	})
	if err != nil {
		return coverage, err
	}
	coverage.Lost = coverage.Lost.Add(lost)
	for _, v := range views {
		if err := ctx.Err(); err != nil {
			return coverage, err
		}
		useAll(v)
	}
	return coverage, nil
}
