package nvml

import (
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestCountersThatWrap(t *testing.T) {
	for name, tt := range map[string]struct {
		bits int
		raw  []uint64
		want []float64
	}{
		"grows":                     {64, []uint64{5, 7, 7, 20}, []float64{5, 7, 7, 20}},
		"32 bits":                   {32, []uint64{math.MaxUint32 - 9, 10}, []float64{math.MaxUint32 - 9, math.MaxUint32 + 11}},
		"64 bits of which 32 count": {64, []uint64{math.MaxUint32 - 9, 10, 5}, []float64{math.MaxUint32 - 9, math.MaxUint32 + 11, 2*math.MaxUint32 + 7}},
		"64 bits that begin anew":   {64, []uint64{1 << 40, 3}, []float64{1 << 40, 1<<40 + 3}},
		"many turns":                {32, []uint64{0, 1 << 31, 0, 1 << 31, 0}, []float64{0, 1 << 31, 1 << 32, 3 << 31, 1 << 33}},
	} {
		t.Run(name, func(t *testing.T) {
			c := counters{}
			var got []float64
			for _, raw := range tt.raw {
				s := &Snapshot{Devices: []Device{{UUID: "GPU-0", wrapping: []wrapping{{"hw.gpu.io", "transmit", raw, tt.bits}}}}}
				c.unwrap(s)
				got = append(got, s.Devices[0].Values[0].Value)
			}
			assert.Equal(t, tt.want, got)
		})
	}
}

func TestCountersOfADriverThatWasAway(t *testing.T) {
	c := counters{}
	read := func(raw uint64) float64 {
		s := &Snapshot{Devices: []Device{{UUID: "GPU-0", wrapping: []wrapping{{"hw.gpu.io", "transmit", raw, 32}}}}}
		c.unwrap(s)
		return s.Devices[0].Values[0].Value
	}
	read(1000)
	c.forget()
	assert.InDelta(t, 1000, read(10), 0, "that it has begun anew is no turn of 4 GiB")
	assert.InDelta(t, 1005, read(15), 0)
}

func TestEveryXIDIsDescribed(t *testing.T) {
	for code := range xids {
		text, severity := DescribeXID(code)
		assert.NotEmpty(t, text, code)
		assert.LessOrEqual(t, severity, Hardware)
	}
	_, severity := DescribeXID(79)
	assert.Equal(t, Hardware, severity)
	_, severity = DescribeXID(31)
	assert.Equal(t, Program, severity)
	text, severity := DescribeXID(9999)
	assert.Equal(t, Error, severity)
	assert.Equal(t, "see NVIDIA's catalogue of XID errors", text)
}

// Whatever is read, a counter never falls.
func FuzzCounters(f *testing.F) {
	f.Add(uint64(1), uint64(0), true)
	f.Add(uint64(1)<<40, uint64(3), false)
	f.Fuzz(func(t *testing.T, first, second uint64, narrow bool) {
		bits := 64
		if narrow {
			bits, first, second = 32, first&math.MaxUint32, second&math.MaxUint32
		}
		if first > 1<<62 || second > 1<<62 {
			t.Skip("no counter gets there")
		}
		n := &count{raw: first, total: first, known: true}
		n.next(second, bits)
		assert.GreaterOrEqual(t, n.total, first)
	})
}
