package engine

import (
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pcommon"
)

func TestJSON(t *testing.T) {
	m := pcommon.NewMap()
	m.PutStr("text", "a \"b\"\\ \n\u2028\x00é")
	m.PutStr("", "")
	m.PutInt("most", math.MaxInt64)
	m.PutInt("least", math.MinInt64)
	m.PutDouble("whole", 3)
	m.PutDouble("small", 1e-300)
	m.PutDouble("large", -1e300)
	m.PutBool("yes", true)
	m.PutBool("no", false)
	m.PutEmpty("nothing")
	nested := m.PutEmptyMap("zebra")
	nested.PutEmptySlice("none")
	list := nested.PutEmptySlice("list")
	list.AppendEmpty().SetInt(1)
	list.AppendEmpty().SetEmptyMap().PutStr("k", "v")
	nested.PutInt("antelope", 2)

	text := appendMap(nil, m)
	require.True(t, json.Valid(text), "%s", text)
	got := pcommon.NewMap()
	require.NoError(t, readMap(text, got))
	assert.Equal(t, m.AsRaw(), got.AsRaw())
	var keys []string
	v, _ := got.Get("zebra")
	for key := range v.Map().All() {
		keys = append(keys, key)
	}
	assert.Equal(t, []string{"none", "list", "antelope"}, keys, "in their order")
	whole, _ := got.Get("whole")
	assert.Equal(t, pcommon.ValueTypeDouble, whole.Type())
}

func TestJSONHasNoSuchNumbers(t *testing.T) {
	for _, f := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		m := pcommon.NewMap()
		m.PutDouble("f", f)
		assert.Equal(t, `{"f":null}`, string(appendMap(nil, m)))
	}
}

func TestNoJSON(t *testing.T) {
	for _, text := range []string{
		"", "x", "{", `{"a"}`, `{"a":}`, `{"a":1,}`, `{"a":1`, `{"a":"x}`, `{"a":"\x"}`, `{"a":1}x`, `{"a":12345678901234567890}`, `{"a":tru}`,
		`{a:1}`, `[1]`, `{"a":[1,]}`, `{"a":--1}`, strings.Repeat(`{"a":`, 50) + "1" + strings.Repeat("}", 50),
	} {
		assert.Error(t, readMap([]byte(text), pcommon.NewMap()), text)
	}
	assert.ErrorContains(t, readMap([]byte(`{"a":1,"b"x}`), pcommon.NewMap()), "byte 10: not JSON")
}

// Whatever an engine answers, reading it ends, and what was read can be written and is the same again.
func FuzzJSON(f *testing.F) {
	f.Add([]byte(`{"a":[1,2.5,{"b":null}],"c":"\u00e9","d":true}`))
	f.Add([]byte(`{"a":1e5}`))
	f.Add([]byte("{\"\x9f\":null}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		first := pcommon.NewMap()
		if readMap(text, first) != nil {
			return
		}
		again := pcommon.NewMap()
		written := appendMap(nil, first)
		require.NoError(t, readMap(written, again), "%s", written)
		assert.Equal(t, string(written), string(appendMap(nil, again)))
	})
}

func FuzzLine(f *testing.F) {
	r := record()
	b := newBatch("orb8.network.flow")
	b.flow(&r)
	f.Add([]byte(body(b)))
	f.Add([]byte(`{"event":"orb8.dns","time":1,"attributes":{},"resource":{}}`))
	f.Fuzz(func(_ *testing.T, text []byte) {
		l, err := parse(text)
		if err != nil {
			return
		}
		_, _ = l.flow()
		_, _ = l.lookup()
		_, _ = l.counts()
		_, _ = l.anomaly()
		_, _ = l.sample()
	})
}
