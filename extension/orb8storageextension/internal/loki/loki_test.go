package loki

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/orb8/orb8/extension/orb8storageextension/internal/engine"
)

func query() engine.Query {
	return engine.Query{Event: "orb8.dns", Since: time.Unix(0, 0).UTC(), Until: time.Unix(0, 100).UTC()}
}

func TestLogQL(t *testing.T) {
	term := func(t engine.Term) engine.Any { return engine.Any{{t}} }
	for name, tt := range map[string]struct {
		where engine.Any
		want  string
	}{
		"all":   {nil, ""},
		"equal": {term(engine.Term{Fields: []string{"a", "b.c"}, Equal: []string{"x", `"|.*`}}), ` | ((a=~"x|\"\\|\\.\\*" or b_c=~"x|\"\\|\\.\\*"))`},
		"begin": {term(engine.Term{Fields: []string{"a"}, Equal: []string{"01"}, Begin: []string{"01"}}), ` | ((a=~"01|01.*"))`},
		"IP":    {term(engine.Term{Fields: []string{"a"}, Within: []netip.Prefix{netip.MustParsePrefix("2001:db8::1/32")}}), ` | ((a=ip("2001:db8::/32")))`},
		"both":  {engine.Any{{{Fields: []string{"a"}, Equal: []string{"1"}}, {Fields: []string{"b"}, Equal: []string{"2"}}}}, ` | ((a=~"1") and (b=~"2"))`},
		"either": {engine.Any{{{Fields: []string{"a"}, Equal: []string{"1"}}}, {{Fields: []string{"b"}, Equal: []string{"2"}}}},
			` | ((a=~"1")) or ((b=~"2"))`},
		"either of which is all": {engine.Any{{{Fields: []string{"a"}, Equal: []string{"1"}}}, {{Fields: []string{"b"}}}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			q := query()
			q.Where = tt.where
			assert.Equal(t, `{service_namespace="orb8",service_name="orb8.dns"}`+tt.want+" | keep service_name", logQL(&q))
		})
	}
	q := query()
	q.Nodes = []string{"node-a", "node.b"}
	assert.Contains(t, logQL(&q), `,service_instance_id=~"node-a|node\\.b"}`)
}

// lines answers as Loki does: the newest of the lines that are in the range, up to the limit.
func lines(t *testing.T, instants ...int64) *Engine {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start, _ := strconv.ParseInt(r.FormValue("start"), 10, 64)
		end, _ := strconv.ParseInt(r.FormValue("end"), 10, 64)
		limit, _ := strconv.Atoi(r.FormValue("limit"))
		var values []string
		for i, at := range instants {
			if at >= start && at < end && len(values) < limit {
				values = append(values, fmt.Sprintf(`["%d","line %d"]`, at, i))
			}
		}
		fmt.Fprintf(w, `{"status":"success","data":{"resultType":"streams","result":[{"stream":{},"values":[%s]}]}}`, strings.Join(values, ","))
	}))
	t.Cleanup(s.Close)
	return &Engine{Client: engine.Client{Writes: s.Client(), Queries: s.Client(), Endpoint: s.URL, Name: "Loki"}, PageLines: 3}
}

func TestPages(t *testing.T) {
	for name, tt := range map[string]struct {
		instants []int64
		max      int
		want     []string
		from     int64
	}{
		"none":                    {nil, 10, nil, 0},
		"one page":                {[]int64{9, 8}, 10, []string{"line 0", "line 1"}, 0},
		"several":                 {[]int64{9, 8, 7, 6, 5}, 100, []string{"line 0", "line 1", "line 2", "line 3", "line 4"}, 0},
		"an instant on two pages": {[]int64{9, 8, 7, 7, 5}, 100, []string{"line 0", "line 1", "line 2", "line 3", "line 4"}, 0},
		"the newest":              {[]int64{9, 8, 7, 6, 5, 4, 3}, 4, []string{"line 0", "line 1", "line 2", "line 3", "line 4"}, 6},
	} {
		t.Run(name, func(t *testing.T) {
			seen := map[string]bool{}
			from, err := lines(t, tt.instants...).Read(t.Context(), query(), tt.max, func(line []byte) error {
				seen[string(line)] = true
				return nil
			})
			require.NoError(t, err)
			assert.Len(t, seen, len(tt.want))
			for _, line := range tt.want {
				assert.True(t, seen[line], line)
			}
			if tt.from == 0 {
				assert.Zero(t, from)
			} else {
				assert.Equal(t, time.Unix(0, tt.from).UTC(), from)
			}
		})
	}
	_, err := lines(t, 9, 7, 7, 7, 7).Read(t.Context(), query(), 100, func([]byte) error { return nil })
	assert.ErrorContains(t, err, "orb8.dns has 3 lines or more of one instant, 1970-01-01T00:00:00.000000007Z")
}

// A page is small until it is known how long the lines are, and grows where one instant has more lines than a page.
func TestPagesBySize(t *testing.T) {
	var limits []int
	var width int
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		limit, _ := strconv.Atoi(r.FormValue("limit"))
		end, _ := strconv.ParseInt(r.FormValue("end"), 10, 64)
		limits = append(limits, limit)
		var values []string
		for range min(limit, 120) { // all of one instant, and one line before
			values = append(values, fmt.Sprintf(`["%d",%q]`, min(end-1, 50), strings.Repeat("x", width)))
		}
		if limit > 120 && end > 50 {
			for len(values) < limit {
				values = append(values, fmt.Sprintf(`["40",%q]`, "y"))
			}
		}
		fmt.Fprintf(w, `{"data":{"resultType":"streams","result":[{"values":[%s]}]}}`, strings.Join(values, ","))
	}))
	t.Cleanup(s.Close)
	e := &Engine{Client: engine.Client{Queries: s.Client(), Endpoint: s.URL, Name: "Loki"}, PageLines: 5000}
	width = 1000
	_, err := e.Read(t.Context(), query(), 5000, func([]byte) error { return nil })
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(limits), 2)
	assert.Equal(t, firstLines, limits[0])
	assert.Equal(t, firstLines+pageBytes/1001, limits[1])
	limits, width = nil, 1<<16
	_, err = e.Read(t.Context(), query(), 5000, func([]byte) error { return nil })
	require.NoError(t, err)
	assert.Equal(t, []int{50, 81, 162}, limits[:3])
}

func TestLatest(t *testing.T) {
	q := query()
	for i := range 20 {
		q.Nodes = append(q.Nodes, fmt.Sprint("node-", i))
	}
	var n int
	require.NoError(t, lines(t, 9, 8).Latest(t.Context(), q, func(line []byte) error {
		assert.Equal(t, "line 0", string(line))
		n++
		return nil
	}))
	assert.Equal(t, 20, n)
}

func TestAnswersThatAreNone(t *testing.T) {
	for answer, want := range map[string]string{
		``: "its answer is no JSON of lines: EOF", `{"data":{"resultType":"matrix"}}`: `its answer is of type "matrix" and not streams`,
		`{"data":{"resultType":"streams","result":[{"values":[["1"]]}]}}`:     "has a line of 1 parts",
		`{"data":{"resultType":"streams","result":[{"values":[["x","y"]]}]}}`: `a line whose instant is "x"`,
	} {
		_, err := readPage(strings.NewReader(answer), func([]byte) error { return nil })
		assert.ErrorContains(t, err, want)
	}
}

func FuzzPage(f *testing.F) {
	f.Add(`{"data":{"resultType":"streams","result":[{"values":[["1","x"]]}]}}`)
	f.Fuzz(func(_ *testing.T, text string) {
		_, _ = readPage(strings.NewReader(text), func([]byte) error { return nil })
	})
}
