// Package victorialogs is VictoriaLogs, or a cluster of it, as an engine: OpenTelemetry logs in, LogsQL out.
package victorialogs

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"go.opentelemetry.io/collector/pdata/plog"

	"github.com/orb8/orb8/extension/orb8storageextension/internal/engine"
)

const (
	insertPath = "/insert/opentelemetry/v1/logs"
	queryPath  = "/select/logsql/query"
	nodesPath  = "/select/logsql/stream_field_values"

	// maxLine is the longest line of an answer: VictoriaLogs takes no longer records than 2 MiB, and escapes them.
	maxLine = 8 << 20
	// steps is in how many parts a range is counted, to know the newest of which may be read.
	steps = 500
)

// streamFields are the attributes that make a stream.
var streamFields = http.Header{"Vl-Stream-Fields": {engine.AttrNamespace + "," + engine.AttrEvent + "," + engine.AttrNode}}

// Engine is a VictoriaLogs server.
type Engine struct{ Client engine.Client }

var _ engine.Engine = (*Engine)(nil)

// Name returns victorialogs.
func (*Engine) Name() string { return "victorialogs" }

// Write sends logs. Queries show them about a second later.
func (e *Engine) Write(ctx context.Context, logs plog.Logs) error {
	return e.Client.Push(ctx, insertPath, streamFields, logs)
}

// Read reads all lines, or if they are more than max, those of the newest parts of the range.
func (e *Engine) Read(ctx context.Context, q engine.Query, max int, use func(line []byte) error) (from time.Time, err error) {
	if from, err = e.newest(ctx, q, max); err != nil {
		return from, err
	}
	if from.After(q.Since) {
		q.Since = from
	}
	return from, e.lines(ctx, logsQL(&q)+" | fields _msg", use)
}

// newest returns from when on there are at most so many lines, or the zero time if there are no more in all. It counts parts of the
// range, and then parts of the part that has too many, down to seconds. At least a second is read.
func (e *Engine) newest(ctx context.Context, q engine.Query, max int) (from time.Time, err error) {
	for {
		step := (q.Until.Sub(q.Since) / steps).Truncate(time.Second) + time.Second
		parts, err := e.count(ctx, &q, step)
		if err != nil {
			return from, err
		}
		fit := 0
		for fit < len(parts) && parts[fit].lines <= max {
			max -= parts[fit].lines
			fit++
		}
		if fit == len(parts) {
			return from, nil
		}
		if fit > 0 {
			from = parts[fit-1].start
		}
		if step == time.Second {
			if from.IsZero() {
				from = parts[0].start
			}
			return from, nil
		}
		if end := parts[fit].start.Add(step); end.Before(q.Until) {
			q.Until = end
		}
		if parts[fit].start.After(q.Since) {
			q.Since = parts[fit].start
		}
	}
}

// part is how many lines there are from an instant on.
type part struct {
	start time.Time
	lines int
}

// count returns the parts of a range that have lines, the newest first.
func (e *Engine) count(ctx context.Context, q *engine.Query, step time.Duration) (parts []part, err error) {
	query := fmt.Sprintf("%s | stats by (_time:%ds) count() lines", logsQL(q), int(step.Seconds()))
	err = e.rows(ctx, query, func(r *row) error {
		lines, err := strconv.Atoi(r.Lines)
		parts = append(parts, part{r.Time, lines})
		return err
	})
	slices.SortFunc(parts, func(a, b part) int { return b.start.Compare(a.start) })
	return parts, err
}

// Nodes returns the streams' nodes.
func (e *Engine) Nodes(ctx context.Context, q engine.Query) ([]string, error) {
	var answer struct {
		Values []struct{ Value string }
	}
	form := url.Values{"query": {logsQL(&q)}, "field": {engine.AttrNode}}
	err := e.Client.Ask(ctx, nodesPath, form, func(r io.Reader) error { return json.NewDecoder(r).Decode(&answer) })
	nodes := make([]string, len(answer.Values))
	for i, v := range answer.Values {
		nodes[i] = v.Value
	}
	return nodes, err
}

// Latest reads the newest line of each node.
func (e *Engine) Latest(ctx context.Context, q engine.Query, use func(line []byte) error) error {
	node := quote(engine.AttrNode)
	return e.lines(ctx, fmt.Sprintf("%s | fields _time, _msg, %s | last 1 by (_time) partition by (%s) | fields _msg", logsQL(&q), node, node), use)
}

// row is a line of an answer, of which each has what its query asks for.
type row struct {
	Message string    `json:"_msg"`
	Time    time.Time `json:"_time"`
	Lines   string    `json:"lines"`
}

func (e *Engine) lines(ctx context.Context, query string, use func(line []byte) error) error {
	return e.rows(ctx, query, func(r *row) error { return use([]byte(r.Message)) })
}

func (e *Engine) rows(ctx context.Context, query string, use func(*row) error) error {
	return e.Client.Ask(ctx, queryPath, url.Values{"query": {query}}, func(r io.Reader) error { return readRows(r, use) })
}

// readRows reads one object a line. When VictoriaLogs fails in the midst of an answer, it says why in a line that is none.
func readRows(r io.Reader, use func(*row) error) error {
	scanner := bufio.NewScanner(r)
	scanner.Buffer(make([]byte, 0, 64<<10), maxLine)
	for scanner.Scan() {
		if len(scanner.Bytes()) == 0 {
			continue
		}
		var one row
		if err := json.Unmarshal(scanner.Bytes(), &one); err != nil {
			line := string(excerpt(scanner.Bytes()))
			if !scanner.Scan() && scanner.Err() != nil {
				return scanner.Err() // the answer was cut off, and the line is its last
			}
			return fmt.Errorf("its answer has a line that is none: %q", line)
		}
		if err := use(&one); err != nil {
			return err
		}
	}
	return scanner.Err()
}

func excerpt(line []byte) []byte { return line[:min(len(line), 256)] }
