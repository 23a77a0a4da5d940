package embedded

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/storage"
)

func TestHealthIsCompactedAndExpanded(t *testing.T) {
	tests := map[string]struct{ in, want flow.TCPHealth }{
		"nothing": {},
		"everything": {
			flow.TCPHealth{
				ClientISN: math.MaxUint32, ServerISN: 1, HasISNs: true, SRTT: time.Millisecond, MinRTT: time.Microsecond,
				Handshake: time.Minute, Retransmits: math.MaxUint32, ZeroWindows: 1,
			},
			flow.TCPHealth{
				ClientISN: math.MaxUint32, ServerISN: 1, HasISNs: true, SRTT: time.Millisecond, MinRTT: time.Microsecond,
				Handshake: time.Minute, Retransmits: math.MaxUint32, ZeroWindows: 1,
			},
		},
		"client's number of 0": {
			flow.TCPHealth{ServerISN: 1, HasISNs: true}, flow.TCPHealth{ServerISN: 1, HasISNs: true},
		},
		"numbers that are not known": {flow.TCPHealth{ClientISN: 1, ServerISN: 2}, flow.TCPHealth{}},
		"more than it holds": {
			flow.TCPHealth{SRTT: 100 * time.Hour, Retransmits: math.MaxUint64, ZeroWindows: math.MaxUint32 + 1},
			flow.TCPHealth{SRTT: math.MaxUint32 * time.Microsecond, Retransmits: math.MaxUint32, ZeroWindows: math.MaxUint32},
		},
		"less than nothing":     {flow.TCPHealth{MinRTT: -time.Second}, flow.TCPHealth{}},
		"parts of microseconds": {flow.TCPHealth{MinRTT: 1500}, flow.TCPHealth{MinRTT: time.Microsecond}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			h := compact(&tt.in)
			assert.Equal(t, tt.want, h.expand())
		})
	}
	assert.EqualValues(t, 32, healthBytes, "a record of TCP takes so much more than one of UDP")
}

func TestHealthOfManyRecords(t *testing.T) {
	sample := func(start, end int, h flow.TCPHealth) flow.Record {
		return with(record(start, end), func(r *flow.Record) { r.TCPHealth = h })
	}
	s := storeOf(
		sample(0, 1, flow.TCPHealth{SRTT: 1e6, MinRTT: 5e6, Handshake: 7e6, Retransmits: 1, ZeroWindows: 1}),
		with(sample(4, 5, flow.TCPHealth{
			ClientISN: 1, ServerISN: 2, HasISNs: true, SRTT: 3e6, MinRTT: 4e6, Retransmits: math.MaxUint32, ZeroWindows: 2,
		}), func(r *flow.Record) { r.Initiator = flow.InitiatorSource }),
		// An older one that comes late.
		sample(2, 3, flow.TCPHealth{SRTT: 2e6, MinRTT: 6e6, Handshake: 8e6, Retransmits: 1}),
		// The end knows of nothing but the end.
		with(record(5, 6), func(r *flow.Record) { r.Ended, r.Outcome = true, flow.OutcomeReset }),
	)
	got := query(t, s, storage.FlowQuery{}).Flows
	if assert.Len(t, got, 1) {
		assert.Equal(t, flow.TCPHealth{
			ClientISN: 1, ServerISN: 2, HasISNs: true, SRTT: 3e6, MinRTT: 4e6, Handshake: 7e6,
			Retransmits: math.MaxUint32 + 2, ZeroWindows: 3,
		}, got[0].TCPHealth)
		assert.Equal(t, flow.InitiatorSource, got[0].Initiator)
		assert.Equal(t, flow.OutcomeReset, got[0].Outcome)
		assert.True(t, got[0].Ended)
	}
}

func TestHealthTakesMemoryThatIsCounted(t *testing.T) {
	plain, healthy := storeOf(record(1, 2)), storeOf(with(record(1, 2), func(r *flow.Record) { r.SRTT = time.Millisecond }))
	assert.Equal(t, plain.Status().Store.Bytes+healthBytes, healthy.Status().Store.Bytes)
}
