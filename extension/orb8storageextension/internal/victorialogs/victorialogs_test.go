package victorialogs

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/orb8/orb8/extension/orb8storageextension/internal/engine"
)

func query() engine.Query {
	return engine.Query{Event: "orb8.dns", Since: time.Unix(0, 1).UTC(), Until: time.Unix(10, 0).UTC()}
}

func TestLogsQL(t *testing.T) {
	const stream = `{"service.namespace"="orb8","service.name"="orb8.dns"} _time:[1970-01-01T00:00:00.000000001Z,1970-01-01T00:00:10.000000000Z)`
	term := func(t engine.Term) engine.Any { return engine.Any{{t}} }
	for name, tt := range map[string]struct {
		where engine.Any
		want  string
	}{
		"all":      {nil, ""},
		"equal":    {term(engine.Term{Fields: []string{"a", "b.c"}, Equal: []string{"x", `"or*`}}), ` ((("a":in("x","\"or*") or "b.c":in("x","\"or*"))))`},
		"begin":    {term(engine.Term{Fields: []string{"a"}, Begin: []string{"01"}}), ` ((("a":="01"*)))`},
		"IPv4":     {term(engine.Term{Fields: []string{"a"}, Within: []netip.Prefix{netip.MustParsePrefix("10.1.2.3/8")}}), ` ((("a":ipv4_range("10.0.0.0/8"))))`},
		"an IP":    {term(engine.Term{Fields: []string{"a"}, Within: []netip.Prefix{netip.MustParsePrefix("2001:db8::1/128")}}), ` ((("a":="2001:db8::1")))`},
		"IPv6":     {term(engine.Term{Fields: []string{"a"}, Within: []netip.Prefix{netip.MustParsePrefix("2001:db8::/32")}}), ` ((("a":=~"^2001:")))`},
		"all IPv6": {term(engine.Term{Fields: []string{"a"}, Within: []netip.Prefix{netip.MustParsePrefix("::/0")}}), ` ((("a":=~":")))`},
		"both":     {engine.Any{{{Fields: []string{"a"}, Equal: []string{"1"}}, {Fields: []string{"b"}, Equal: []string{"2"}}}}, ` ((("a":in("1")) and ("b":in("2"))))`},
		"either": {engine.Any{{{Fields: []string{"a"}, Equal: []string{"1"}}}, {{Fields: []string{"b"}, Equal: []string{"2"}}}},
			` ((("a":in("1"))) or (("b":in("2"))))`},
		"either of which is all": {engine.Any{{{Fields: []string{"a"}, Equal: []string{"1"}}}, {{Fields: []string{"b"}}}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			q := query()
			q.Where = tt.where
			assert.Equal(t, stream+tt.want, logsQL(&q))
		})
	}
	q := query()
	q.Nodes = []string{"node-a", "node.b"}
	assert.Contains(t, logsQL(&q), `,"service.instance.id"=~"node-a|node\\.b"}`)
}

// server answers each query in turn.
func server(t *testing.T, answers ...string) *Engine {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(answers[0]))
		answers = answers[1:]
	}))
	t.Cleanup(s.Close)
	return &Engine{Client: engine.Client{Writes: s.Client(), Queries: s.Client(), Endpoint: s.URL, Name: "VictoriaLogs"}}
}

func TestRead(t *testing.T) {
	const counts = `{"_time":"1970-01-01T00:00:02Z","lines":"5"}
{"_time":"1970-01-01T00:00:04Z","lines":"3"}
{"_time":"1970-01-01T00:00:03Z","lines":"4"}
`
	for name, tt := range map[string]struct {
		max  int
		want time.Time
	}{"all": {12, time.Time{}}, "the newest": {8, time.Unix(3, 0).UTC()}, "at least a part": {1, time.Unix(4, 0).UTC()}} {
		t.Run(name, func(t *testing.T) {
			var lines []string
			from, err := server(t, counts, "{\"_msg\":\"a \\\"b\\\"\"}\n\n{\"_msg\":\"c\"}").Read(t.Context(), query(), tt.max, func(line []byte) error {
				lines = append(lines, string(line))
				return nil
			})
			require.NoError(t, err)
			assert.Equal(t, tt.want, from)
			assert.Equal(t, []string{`a "b"`, "c"}, lines)
		})
	}
	nodes, err := server(t, `{"values":[{"value":"node-a","hits":3},{"value":"node-b","hits":1}]}`).Nodes(t.Context(), query())
	require.NoError(t, err)
	assert.Equal(t, []string{"node-a", "node-b"}, nodes)
}

// An answer begins with 200 and may still fail.
func TestAnAnswerThatFails(t *testing.T) {
	_, err := server(t, "", "{\"_msg\":\"a\"}\ncannot execute query: node is away").Read(t.Context(), query(), 1, func([]byte) error { return nil })
	assert.ErrorContains(t, err, `cannot read from VictoriaLogs: its answer has a line that is none: "cannot execute query: node is away"`)
	_, err = server(t, "", strings.Repeat("x", maxLine+1)).Read(t.Context(), query(), 1, func([]byte) error { return nil })
	assert.ErrorContains(t, err, "token too long")
	_, err = server(t, `{"lines":"many"}`).Read(t.Context(), query(), 1, func([]byte) error { return nil })
	assert.ErrorContains(t, err, "many")
	_, err = server(t, `{"values":`).Nodes(t.Context(), query())
	assert.ErrorContains(t, err, "unexpected EOF")
}

// An answer that is cut off is no answer, wherever it is cut.
func TestACutAnswer(t *testing.T) {
	for _, sent := range []string{"{\"_msg\":\"a\"}\n{\"_msg", "{\"_msg\":\"a\"}\n"} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !strings.Contains(r.FormValue("query"), "stats") {
				_, _ = w.Write([]byte(sent))
				w.(http.Flusher).Flush()
				panic(http.ErrAbortHandler)
			}
		}))
		t.Cleanup(s.Close)
		e := &Engine{Client: engine.Client{Queries: s.Client(), Endpoint: s.URL, Name: "VictoriaLogs"}}
		_, err := e.Read(t.Context(), query(), 1, func([]byte) error { return nil })
		assert.ErrorContains(t, err, "cannot read from VictoriaLogs: unexpected EOF")
	}
}

func FuzzRows(f *testing.F) {
	f.Add("{\"_msg\":\"x\",\"_time\":\"1970-01-01T00:00:02Z\",\"lines\":\"5\"}\n\n")
	f.Add("cannot execute query")
	f.Fuzz(func(_ *testing.T, text string) {
		_ = readRows(strings.NewReader(text), func(*row) error { return nil })
	})
}
