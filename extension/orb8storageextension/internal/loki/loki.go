// Package loki is Loki as an engine: OpenTelemetry logs in, LogQL out.
package loki

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"sync"
	"time"

	"go.opentelemetry.io/collector/pdata/plog"

	"github.com/orb8/orb8/extension/orb8storageextension/internal/engine"
)

const (
	insertPath = "/otlp/v1/logs"
	queryPath  = "/loki/api/v1/query_range"
	nodesPath  = "/loki/api/v1/label/" + labelNode + "/values"

	// firstLines is how many lines are asked for before it is known how long they are, and pageBytes about how much of the longest
	// found so far after that: Loki's parts say no more than 4 MiB to each other, and a query whose answer is larger hangs.
	firstLines = 50
	pageBytes  = 2 << 20

	// parallel is how many nodes are asked for at once, as each takes a query.
	parallel = 8
)

// Engine is a Loki server.
type Engine struct {
	Client engine.Client
	// PageLines is how many lines an answer has at most: Loki's max_entries_limit_per_query, or less.
	PageLines int
}

var _ engine.Engine = (*Engine)(nil)

// Name returns loki.
func (*Engine) Name() string { return "loki" }

// Write sends logs.
func (e *Engine) Write(ctx context.Context, logs plog.Logs) error {
	return e.Client.Push(ctx, insertPath, nil, logs)
}

// Read goes back from the newest line, a page at a time, until it has read so many lines or all.
func (e *Engine) Read(ctx context.Context, q engine.Query, most int, use func(line []byte) error) (from time.Time, err error) {
	limit := min(firstLines, e.PageLines)
	for total := 0; ; {
		p, err := e.page(ctx, &q, limit, use)
		if err != nil || p.lines < limit {
			return from, err
		}
		if total += p.lines; total >= most {
			return p.oldest.Add(1), nil
		}
		// Of the oldest instant there may be more: all of it is read again, and what is there twice is known by its id.
		next := p.oldest.Add(1)
		if next.Before(q.Until) {
			limit = min(e.PageLines, firstLines+pageBytes/(p.widest+1))
		} else if limit < e.PageLines {
			limit = min(e.PageLines, 2*limit)
		} else {
			return from, fmt.Errorf("%s has %d lines or more of one instant, %s, which is all that an answer has: raise Loki's "+
				"max_entries_limit_per_query and query_lines", q.Event, p.lines, p.oldest.Format(time.RFC3339Nano))
		}
		q.Until = next
	}
}

// Nodes returns the streams' nodes.
func (e *Engine) Nodes(ctx context.Context, q engine.Query) ([]string, error) {
	var answer struct{ Data []string }
	err := e.Client.Ask(ctx, nodesPath+"?"+form(&q, stream(&q)).Encode(), url.Values{}, func(r io.Reader) error {
		return json.NewDecoder(r).Decode(&answer)
	})
	return answer.Data, err
}

// Latest asks for each node.
func (e *Engine) Latest(ctx context.Context, q engine.Query, use func(line []byte) error) error {
	var (
		mu    sync.Mutex
		first error
		all   sync.WaitGroup
		turns = make(chan struct{}, parallel)
	)
	for _, node := range q.Nodes {
		one := q
		one.Nodes = []string{node}
		turns <- struct{}{}
		all.Go(func() {
			defer func() { <-turns }()
			_, err := e.page(ctx, &one, 1, func(line []byte) error {
				mu.Lock()
				defer mu.Unlock()
				return use(line)
			})
			mu.Lock()
			defer mu.Unlock()
			if first == nil {
				first = err
			}
		})
	}
	all.Wait()
	return first
}

// page is what an answer had.
type page struct {
	lines  int
	oldest time.Time
	// widest is the length of the longest line.
	widest int
}

// page reads the newest lines of a query.
func (e *Engine) page(ctx context.Context, q *engine.Query, limit int, use func(line []byte) error) (p page, err error) {
	f := form(q, logQL(q))
	f.Set("limit", strconv.Itoa(limit))
	f.Set("direction", "backward")
	err = e.Client.Ask(ctx, queryPath, f, func(r io.Reader) error {
		p, err = readPage(r, use)
		return err
	})
	return p, err
}

// form returns a query and its range, in nanoseconds.
func form(q *engine.Query, query string) url.Values {
	return url.Values{
		"query": {query}, "start": {strconv.FormatInt(q.Since.UnixNano(), 10)}, "end": {strconv.FormatInt(q.Until.UnixNano(), 10)},
	}
}

// answer is that of a query for lines. Each has its instant and its text.
type answer struct {
	Data struct {
		ResultType string
		Result     []struct{ Values [][]string }
	}
}

func readPage(r io.Reader, use func(line []byte) error) (p page, err error) {
	var a answer
	if err := json.NewDecoder(r).Decode(&a); err != nil {
		return p, fmt.Errorf("its answer is no JSON of lines: %w", err)
	}
	if a.Data.ResultType != "streams" {
		return p, fmt.Errorf("its answer is of type %q and not streams", a.Data.ResultType)
	}
	for i := range a.Data.Result {
		for _, value := range a.Data.Result[i].Values {
			if len(value) < 2 {
				return p, fmt.Errorf("its answer has a line of %d parts and not of an instant and a text", len(value))
			}
			nanos, err := strconv.ParseInt(value[0], 10, 64)
			if err != nil {
				return p, fmt.Errorf("its answer has a line whose instant is %q and not in nanoseconds", value[0])
			}
			if at := time.Unix(0, nanos).UTC(); p.lines == 0 || at.Before(p.oldest) {
				p.oldest = at
			}
			p.lines++
			p.widest = max(p.widest, len(value[1]))
			if err := use([]byte(value[1])); err != nil {
				return p, err
			}
		}
	}
	return p, nil
}
