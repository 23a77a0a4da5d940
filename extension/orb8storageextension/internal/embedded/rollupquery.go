package embedded

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/orb8/orb8/extension/orb8storageextension/internal/block"
	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/storage"
)

// rollupDimensions are those of an end that a rollup has. It has the transport besides.
var rollupDimensions = []string{"pod", "namespace", "workload", "service", "container", "process", "cgroup"}

// rolledUp tells whether rollups answer a query.
func rolledUp(q *storage.AggregateQuery) bool {
	return q.Bucket == 0 && q.Flows.ByIdentity() && !slices.ContainsFunc(q.By, func(name string) bool {
		end, dimension, ofEnd := strings.Cut(name, ".")
		return name != "transport" && (!ofEnd || end != "source" && end != "destination" || !slices.Contains(rollupDimensions, dimension))
	})
}

// nearTime is how far apart in time two ends may tell of the same flow: they tell of it at the end of their intervals.
const nearTime = int64(time.Minute)

// sumRollups adds what a query selects to groups: of the blocks that are wholly in its range by what their indexes have summed, and
// of the others and of memory by their rows.
func (s *Store) sumRollups(ctx context.Context, query *storage.AggregateQuery, groups *storage.Groups) (storage.Coverage, error) {
	now := s.settings.Now()
	since, until := s.bounds(now, query.Since, query.Until)
	coverage, files, views := note(s, &s.flows, now, since, until, 0, (*node).flowReports, (*chunk).view)
	defer free(files)

	var whole []*index
	var times []block.Meta
	a := newAggregation(since, until)
	var edge int64
	var read uint64
	cut := false
	// Rows are read of the newest, as many as a query may.
	parts := files[:0:0]
	for _, f := range slices.Backward(files) {
		x := indexOf(f)
		if x != nil && f.Meta.Start >= since && f.Meta.End < until {
			whole, times = append(whole, x), append(times, f.Meta)
			continue
		}
		if read += f.Meta.Rows; s.settings.MaxQueryRecords > 0 && read > s.settings.MaxQueryRecords && len(parts) > 0 {
			edge = max(edge, min(f.Meta.End, f.Meta.Written))
			cut = true
			continue
		}
		parts = append(parts, f)
	}
	if cut {
		// What is older than a block that is left out would not be whole either.
		for i := len(whole) - 1; i >= 0; i-- {
			if times[i].End <= edge {
				whole, times = slices.Delete(whole, i, i+1), slices.Delete(times, i, i+1)
			}
		}
	}
	slices.Reverse(parts)
	lost, err := s.readBlocks(ctx, "flows", parts, func(f *block.File) error { return eachView(ctx, f, a.add) })
	if err != nil {
		return coverage, err
	}
	coverage.Lost = coverage.Lost.Add(lost)
	coverage.Oldest = later(coverage.Oldest, edge)
	a.expect(rowsOf(views))
	for i := range views {
		if err := ctx.Err(); err != nil {
			return coverage, err
		}
		a.add(&views[i])
	}
	a.join()
	r := rollupSum{store: s, query: query, groups: groups, rows: a, indexes: whole, times: times, scattered: map[flowID]*scattered{}}
	if err := r.run(ctx); err != nil {
		return coverage, err
	}
	return coverage, nil
}

// rollupSum sums rollups and rows.
type rollupSum struct {
	store   *Store
	query   *storage.AggregateQuery
	groups  *storage.Groups
	rows    *aggregation
	indexes []*index
	times   []block.Meta
	// words are those of indexes that were needed: most are not, where a block was summed before and has no open flows.
	words []*words
	// scattered are the flows that are open anywhere.
	scattered map[flowID]*scattered

	// sums are what the blocks' rollups sum up to, of the groups that are seen in any; keys and values are a question's.
	seen   []bool
	sums   []uint64
	keys   []uint32
	values []string
}

func (r *rollupSum) run(ctx context.Context) error {
	r.words = make([]*words, len(r.indexes))
	if err := r.sumIndexes(ctx); err != nil {
		return err
	}
	r.addRows()
	if err := r.settle(ctx); err != nil {
		return err
	}
	by, n := make([]string, len(r.query.By)), len(r.query.Measures)
	for at, seen := range r.seen {
		if !seen {
			continue
		}
		for i := range by {
			by[i] = r.values[r.keys[at*len(by)+i]]
		}
		r.groups.Add(by, r.sums[at*n:(at+1)*n], time.Time{})
	}
	return nil
}

// measured returns those of the sums that are asked for.
func (r *rollupSum) measured(s *rollupSums) []uint64 {
	all := storage.Measures(storage.SignalFlows)
	values := make([]uint64, len(r.query.Measures))
	for i, name := range r.query.Measures {
		values[i] = s[slices.Index(all, name)]
	}
	return values
}

// flowID tells apart what may be the same flow in several places.
type flowID struct {
	hash                uint64
	connected, toServer bool
	// node is set where only one node's views can be of the same flow.
	node string
}

func (s *sighting) id() flowID {
	id := flowID{hash: s.hash, connected: s.connected, toServer: s.toServer}
	if !s.connected {
		id.node = s.node
	}
	return id
}

// scattered is what is known of a flow that no block has whole.
type scattered struct {
	views []openView
	// sent and received are how the ends were seen, also by those that are not open.
	sent, received *flow.Record
}

type openView struct {
	sighting
	sums   rollupSums
	record *flow.Record
}

// wordsOf returns the words of an index.
func (r *rollupSum) wordsOf(i int) (*words, error) {
	if r.words[i] == nil {
		w, err := r.indexes[i].lexicon.of(r.indexes[i])
		if err != nil {
			return nil, err
		}
		r.words[i] = w
	}
	return r.words[i], nil
}

// record returns what a view of an index knows, whose words are there.
func (r *rollupSum) record(i int, v *rollupView, transport flow.Transport) *flow.Record {
	w := r.words[i]
	record := &flow.Record{Node: w.strings[v.node], Direction: v.direction, Transport: transport}
	record.Source.Identity, record.Destination.Identity = w.identities[v.source], w.identities[v.destination]
	return record
}

func (r *rollupSum) addOpen(o openFlow, record *flow.Record) {
	of := r.scattered[o.id()]
	if of == nil {
		of = &scattered{}
		r.scattered[o.id()] = of
	}
	of.views = append(of.views, openView{o.sighting, o.rollupSums, record})
	of.see(record)
}

// see notes how an end was seen; the last one counts.
func (s *scattered) see(r *flow.Record) {
	switch r.Direction {
	case flow.Egress:
		s.sent = r
	case flow.Ingress:
		s.received = r
	}
}

// addRows adds the flows of which rows were read, but for those that are open.
func (r *rollupSum) addRows() {
	for i := range r.rows.flows {
		if f := &r.rows.flows[i]; f.open() {
			record := &flow.Record{}
			f.who(record)
			r.addOpen(openFlow{rollupSums: f.sums(), sighting: f.sighting()}, record)
		}
	}
	s := selector{selection: &r.query.Flows, joined: true}
	for i := range r.rows.flows {
		f := &r.rows.flows[i]
		if f.open() {
			continue
		}
		sighting := f.sighting()
		if of := r.scattered[sighting.id()]; of != nil {
			record := &flow.Record{}
			f.who(record)
			of.see(record)
		}
		r.rows.group(f, &s, r.groups)
	}
}

// settle adds the flows that are open in any place: each view that counts, with what is known of the other end.
func (r *rollupSum) settle(ctx context.Context) error {
	for _, of := range r.scattered {
		if err := ctx.Err(); err != nil {
			return err
		}
		for i := range of.views {
			if of.sent == nil || of.received == nil {
				if err := r.find(of, &of.views[i].sighting); err != nil {
					return err
				}
			}
		}
		for i := range of.views {
			r.addView(of, &of.views[i])
		}
	}
	return nil
}

// find looks for another view in the blocks about the time of one.
func (r *rollupSum) find(of *scattered, s *sighting) error {
	for i, x := range r.indexes {
		if r.times[i].End < s.start-nearTime || r.times[i].Start > s.end+nearTime {
			continue
		}
		var other rollupView
		var found bool
		if err := faults(func() error {
			w, err := r.wordsOf(i)
			if err != nil {
				return err
			}
			other, found, err = x.other(w, s)
			return err
		}); err != nil {
			return &indexError{x, err}
		}
		if found {
			of.see(r.record(i, &other, 0))
			return nil
		}
	}
	return nil
}

// addView adds a view unless another one counts: the client's, or the sender's where no client is known.
func (r *rollupSum) addView(of *scattered, v *openView) {
	counts, far := of.sent, of.received
	if counts == nil || far != nil && v.connected && !v.toServer || far != nil && far.Initiator == flow.InitiatorDestination {
		counts, far = far, counts
	}
	sums := v.sums
	if counts != nil && v.direction != counts.Direction {
		if v.direction != flow.Egress || counts.Direction != flow.Ingress {
			return
		}
		// What was sent again only its sender's socket knows.
		v, far, sums = &openView{record: counts}, v.record, sums.resent()
	}
	row, selection := storage.FlowRow{Own: v.record}, &r.query.Flows
	if far == nil || counts == nil {
		if !selection.Match(v.record) {
			return
		}
	} else {
		row.Far = far
		far.Transport = max(far.Transport, v.record.Transport)
		v.record.Transport = far.Transport
		if !selection.MatchEnds(v.record, far) && !selection.MatchEnds(far, v.record) {
			return
		}
	}
	by := make([]string, len(r.query.By))
	for i, name := range r.query.By {
		by[i] = storage.FlowDimension(name)(row)
	}
	r.groups.Add(by, r.measured(&sums), time.Time{})
}

// indexSums adds up the sums of one index.
type indexSums struct {
	*question
	part
	words     *words
	selection *storage.Selection
	by        []rolledUpBy
	// measures are where the asked ones are in the sums.
	measures []int
	// places are those of groups in part, plus 1; 0 is not there yet.
	places []uint32

	near, far flow.Record
	empty     uint32
	key       []uint32
}

// rolledUpBy is a dimension.
type rolledUpBy struct {
	of          func(storage.FlowRow) string
	transport   bool
	destination bool
	// values are the number of each identity's value plus 1; 0 is not asked for yet.
	values []uint32
}

func newIndexSums(q *question, w *words, query *storage.AggregateQuery) *indexSums {
	s := &indexSums{question: q, words: w, selection: &query.Flows, key: make([]uint32, len(query.By)), empty: q.id("")}
	for _, name := range query.By {
		s.by = append(s.by, rolledUpBy{
			of: storage.FlowDimension(name), transport: name == "transport", destination: strings.HasPrefix(name, "destination."),
			values: make([]uint32, len(w.identities)),
		})
	}
	for _, name := range query.Measures {
		s.measures = append(s.measures, slices.Index(storage.Measures(storage.SignalFlows), name))
	}
	return s
}

func (v *indexSums) add(k *rollupKey, sums *rollupSums) {
	if !v.selection.Empty() && !v.selects(k) {
		return
	}
	key := v.key
	for i := range v.by {
		by := &v.by[i]
		if by.transport {
			key[i] = v.id(k.transport.String())
			continue
		}
		best, second := k.near.source, k.far.source
		other := k.far.direction == flow.Egress
		if by.destination {
			best, second = k.near.destination, k.far.destination
			other = k.far.direction == flow.Ingress
		}
		if other {
			best, second = second, best
		}
		key[i] = v.value(by, best)
		if key[i] == v.empty && k.far.direction != 0 {
			key[i] = v.value(by, second)
		}
	}
	group := v.question.group(key)
	if more := v.question.groups - len(v.places); more > 0 {
		v.places = append(v.places, make([]uint32, more)...)
	}
	if v.places[group] == 0 {
		v.part.groups = append(v.part.groups, group)
		v.part.sums = append(v.part.sums, make([]uint64, len(v.measures))...)
		v.places[group] = uint32(len(v.part.groups))
	}
	at := int(v.places[group]-1) * len(v.measures)
	for i, measure := range v.measures {
		v.part.sums[at+i] += sums[measure]
	}
}

// value returns the number of what an identity has of a dimension.
func (v *indexSums) value(by *rolledUpBy, identity uint32) uint32 {
	if by.values[identity] == 0 {
		var r flow.Record
		r.Source.Identity = v.words.identities[identity]
		r.Destination.Identity = v.words.identities[identity]
		by.values[identity] = v.id(by.of(storage.FlowRow{Own: &r})) + 1
	}
	return by.values[identity] - 1
}

// selects is selector.selects of flows that are summed.
func (v *indexSums) selects(k *rollupKey) bool {
	fill := func(r *flow.Record, of *rollupView) {
		r.Node, r.Direction, r.Transport = v.words.strings[of.node], of.direction, k.transport
		r.Source.Identity, r.Destination.Identity = v.words.identities[of.source], v.words.identities[of.destination]
	}
	fill(&v.near, &k.near)
	selection := v.selection
	if k.far.direction == 0 {
		return selection.Match(&v.near)
	}
	fill(&v.far, &k.far)
	return selection.MatchEnds(&v.near, &v.far) || selection.MatchEnds(&v.far, &v.near)
}

// repaired does something again without an index that turns out to be damaged.
func (s *Store) repaired(err error) bool {
	var damage *indexError
	if !errors.As(err, &damage) {
		return false
	}
	s.disk.Logger.Error("An index cannot be read, and will be made again", zap.Error(err))
	damage.index.broken.Store(true)
	return true
}
