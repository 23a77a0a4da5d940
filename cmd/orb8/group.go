package main

import (
	"encoding/csv"
	"encoding/json"
	"io"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

const (
	// barRoom and sparkRoom are how wide the drawings are; of more buckets neighbours go together.
	barRoom = 10
	// barMeasures is with how many columns of numbers a bar still fits beside the names.
	barMeasures = 3
	sparkRoom   = 32
)

// groups is an aggregation, ready to be printed.
type groups struct {
	by, measures []string
	rows         []row
	total        *orb8v1.AggregateGroup
	// timeline is empty where there are no buckets.
	timeline timeline
	zone     *time.Location
}

// timeline are the buckets of a range, those too in which there was nothing.
type timeline struct {
	start time.Time
	width time.Duration
	count int
}

func newGroups(req *orb8v1.AggregateRequest, reply *orb8v1.AggregateResponse, now time.Time) *groups {
	g := &groups{by: reply.GetBy(), measures: reply.GetMeasures(), total: reply.GetTotal(), zone: now.Location()}
	for _, group := range reply.GetGroups() {
		g.rows = append(g.rows, row{group: group})
	}
	if width := req.GetBucket().AsDuration(); width > 0 {
		g.timeline = newTimeline(width, req.GetSince(), req.GetUntil(), now, reply.GetTotal().GetBuckets())
	}
	return g
}

// newTimeline covers the range that was asked for, and all buckets: a record that began before it may be in it.
func newTimeline(width time.Duration, since, until *timestamppb.Timestamp, now time.Time, buckets []*orb8v1.AggregateBucket) timeline {
	last := now
	if until != nil {
		last = until.AsTime()
	}
	first := last
	if since != nil {
		first = since.AsTime()
	}
	if len(buckets) > 0 {
		if begin := buckets[0].GetStart().AsTime(); since == nil || begin.Before(first) {
			first = begin
		}
		if end := buckets[len(buckets)-1].GetStart().AsTime().Add(width); end.After(last) {
			last = end
		}
	}
	// Buckets begin at multiples of their width since the epoch.
	start := time.Unix(0, first.UnixNano()-first.UnixNano()%int64(width))
	return timeline{start: start, width: width, count: max(1, int((last.Sub(start)+width-1)/width))}
}

func (t timeline) empty() bool { return t.count == 0 }

// values returns the values of one measure, one for each of n stretches of the timeline.
func (t timeline) values(buckets []*orb8v1.AggregateBucket, measure, n int) []uint64 {
	n = min(n, t.count)
	all := make([]uint64, n)
	for _, b := range buckets {
		i := int(b.GetStart().AsTime().Sub(t.start) / t.width)
		if i >= 0 && i < t.count && measure < len(b.GetValues()) {
			all[i*n/t.count] += b.GetValues()[measure]
		}
	}
	return all
}

func (g *groups) write(w io.Writer, output string, s screen) error {
	switch output {
	case outputCSV:
		return g.writeCSV(w)
	case outputJSON, outputJSONL:
		l := newRowsWriter(w, output, layout{}, s)
		rows := make([]row, len(g.rows))
		for i, r := range g.rows {
			rows[i] = row{json: g.json(r.group)}
		}
		if err := l.add(rows); err != nil {
			return err
		}
		return l.end()
	}
	t := &tableWriter{w: w, wide: output == outputWide, screen: s, rows: g.rows}
	t.layout.columns = func([]row, bool) []column { return g.columns() }
	return t.end()
}

func (g *groups) columns() []column {
	var columns []column
	for i, name := range g.by {
		columns = append(columns, column{title: strings.ToUpper(name), flexible: true, text: func(r row) string { return at(r.group.GetBy(), i) }})
	}
	for i, name := range g.measures {
		columns = append(columns, column{
			title: strings.ToUpper(strings.ReplaceAll(name, "_", "-")), right: true,
			text: func(r row) string { return measureText(name, at(r.group.GetValues(), i)) },
		})
	}
	columns = append(columns, column{title: "SHARE", right: true, text: func(r row) string { return percent1(g.share(r.group)) }})
	if g.timeline.empty() && len(g.measures) > barMeasures {
		return columns
	}
	if g.timeline.empty() {
		return append(columns, column{title: "", text: func(r row) string { return bar(g.part(r.group), barRoom) }})
	}
	return append(columns, column{title: g.rangeTitle(), text: func(r row) string {
		return spark(g.timeline.values(r.group.GetBuckets(), 0, sparkRoom))
	}})
}

// rangeTitle says from when to when the drawings below it go.
func (g *groups) rangeTitle() string {
	start, end := g.timeline.start.In(g.zone), g.timeline.start.Add(time.Duration(g.timeline.count)*g.timeline.width).In(g.zone)
	layout := clockLayout
	if start.Format(time.DateOnly) != end.Format(time.DateOnly) {
		layout = dateLayout
	}
	return start.Format(layout) + "–" + end.Format(layout)
}

// share is a group's part of all, by the first measure.
func (g *groups) share(group *orb8v1.AggregateGroup) float64 {
	return ratio(at(group.GetValues(), 0), at(g.total.GetValues(), 0))
}

// part is a group's part of the largest.
func (g *groups) part(group *orb8v1.AggregateGroup) float64 {
	return ratio(at(group.GetValues(), 0), at(g.rows[0].group.GetValues(), 0))
}

func ratio(part, whole uint64) float64 {
	if whole == 0 {
		return 0
	}
	return float64(part) / float64(whole)
}

// at is the element of a list that a collector sent, or nothing where it is not there.
func at[T any](list []T, i int) (v T) {
	if i >= 0 && i < len(list) {
		v = list[i]
	}
	return v
}

func measureText(name string, v uint64) string {
	switch name {
	case "bytes":
		return humanBytes(v)
	case "latency":
		return briefDuration(time.Duration(min(v, 1<<63-1)))
	}
	return humanCount(v)
}

// percent1 is percent with a digit behind the point.
func percent1(share float64) string { return strconv.FormatFloat(100*share, 'f', 1, 64) + " %" }

// bar draws a part of a whole, in eighths of a letter.
func bar(part float64, width int) string {
	eighths := int(part*float64(8*width) + 0.5)
	if part > 0 {
		// What is there is seen.
		eighths = max(eighths, 1)
	}
	text := strings.Repeat("█", eighths/8)
	if rest := eighths % 8; rest > 0 {
		text += string([]rune("▏▎▍▌▋▊▉")[rest-1])
	}
	return text
}

// spark draws values as columns, the highest one whole. What is not 0 is seen.
func spark(values []uint64) string {
	steps := []rune("▁▂▃▄▅▆▇█")
	highest := slices.Max(values)
	drawn := make([]rune, len(values))
	for i, v := range values {
		drawn[i] = '·'
		if v > 0 {
			drawn[i] = steps[int(ratio(v, highest)*float64(len(steps)-1)+0.5)]
		}
	}
	return string(drawn)
}

// jsonPairs is an object whose keys have an order.
type jsonPairs []jsonPair

type jsonPair struct {
	key   string
	value any
}

func (p jsonPairs) MarshalJSON() ([]byte, error) {
	var text strings.Builder
	text.WriteByte('{')
	for i, pair := range p {
		if i > 0 {
			text.WriteByte(',')
		}
		key, err := json.Marshal(pair.key)
		if err != nil {
			return nil, err
		}
		value, err := json.Marshal(pair.value)
		if err != nil {
			return nil, err
		}
		text.Write(key)
		text.WriteByte(':')
		text.Write(value)
	}
	text.WriteByte('}')
	return []byte(text.String()), nil
}

// json is a group as JSON: a key for each dimension and measure.
func (g *groups) json(group *orb8v1.AggregateGroup) jsonPairs {
	var pairs jsonPairs
	for i, name := range g.by {
		pairs = append(pairs, jsonPair{name, at(group.GetBy(), i)})
	}
	pairs = append(pairs, g.values(group.GetValues())...)
	pairs = append(pairs, jsonPair{"share", g.share(group)})
	if !g.timeline.empty() {
		buckets := make([]jsonPairs, 0, len(group.GetBuckets()))
		for _, b := range group.GetBuckets() {
			buckets = append(buckets, append(jsonPairs{{"start", rfc3339(b.GetStart())}}, g.values(b.GetValues())...))
		}
		pairs = append(pairs, jsonPair{"buckets", buckets})
	}
	return pairs
}

func (g *groups) values(values []uint64) jsonPairs {
	var pairs jsonPairs
	for i, name := range g.measures {
		pairs = append(pairs, jsonPair{name, at(values, i)})
	}
	return pairs
}

// writeCSV writes a record for each group, or for each bucket of each where there are buckets.
func (g *groups) writeCSV(w io.Writer) error {
	out := csv.NewWriter(w)
	out.UseCRLF = true
	header := slices.Clone(g.by)
	if !g.timeline.empty() {
		header = append(header, "start")
	}
	header = append(header, g.measures...)
	if g.timeline.empty() {
		header = append(header, "share")
	}
	// The writer keeps its first error.
	_ = out.Write(header)
	for _, r := range g.rows {
		begin := make([]string, len(g.by))
		copy(begin, r.group.GetBy())
		if g.timeline.empty() {
			share := strconv.FormatFloat(g.share(r.group), 'g', -1, 64)
			_ = out.Write(append(append(begin, g.texts(r.group.GetValues())...), share))
			continue
		}
		for _, b := range r.group.GetBuckets() {
			_ = out.Write(slices.Concat(begin, []string{rfc3339(b.GetStart())}, g.texts(b.GetValues())))
		}
	}
	out.Flush()
	return out.Error()
}

// writePairsCSV writes objects with the keys of an example.
func writePairsCSV(w io.Writer, example jsonPairs, rows []row) error {
	out := csv.NewWriter(w)
	out.UseCRLF = true
	header := make([]string, len(example))
	for i, pair := range example {
		header[i] = pair.key
	}
	// The writer keeps its first error.
	_ = out.Write(header)
	for _, r := range rows {
		var record []string
		for _, pair := range r.json.(jsonPairs) {
			record = append(record, csvCell(reflect.ValueOf(pair.value)))
		}
		_ = out.Write(record)
	}
	out.Flush()
	return out.Error()
}

func (g *groups) texts(values []uint64) []string {
	all := make([]string, len(g.measures))
	for i := range all {
		all[i] = strconv.FormatUint(at(values, i), 10)
	}
	return all
}
