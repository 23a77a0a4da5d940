package embedded

import (
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/storage"
)

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// at returns an instant so many seconds after the epoch, which is when every test store starts.
func at(seconds int) time.Time {
	return epoch.Add(time.Duration(seconds) * time.Second)
}

// clock is a clock that the test sets.
type clock struct {
	seconds atomic.Int64
}

func (c *clock) set(seconds int) {
	c.seconds.Store(int64(seconds))
}

func newTestStore(maxBytes uint64) (*Store, *clock) {
	c := &clock{}
	return New(Settings{
		Retention: time.Hour,
		MaxBytes:  maxBytes,
		Now:       func() time.Time { return at(int(c.seconds.Load())) },
	}), c
}

// record returns what the flow from client to server did from start to end, with counts that are easy to recognize
// when summed.
func record(start, end int) flow.Record {
	return flow.Record{
		Start:     at(start),
		End:       at(end),
		Node:      "node-a",
		Direction: flow.Egress,
		Transport: flow.TCP,
		Source: flow.Endpoint{
			Addr:     netip.MustParseAddrPort("10.0.0.1:40000"),
			Identity: flow.Identity{CgroupID: 7, Cgroup: "/kubepods/pod1/c1", Process: "curl", PID: 100},
		},
		Destination: flow.Endpoint{Addr: netip.MustParseAddrPort("10.0.0.2:443")},
		Bytes:       1000,
		Packets:     10,
	}
}

func with(r flow.Record, change func(*flow.Record)) flow.Record {
	change(&r)
	return r
}

// many returns n records of n flows, each of one instant.
func many(n, second int) []flow.Record {
	records := make([]flow.Record, n)
	for i := range records {
		records[i] = record(second, second)
		records[i].Source.Addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), uint16(i>>16))
	}
	return records
}

func query(t *testing.T, s *Store, q storage.FlowQuery) storage.FlowResult {
	t.Helper()
	result, err := s.QueryFlows(t.Context(), q)
	require.NoError(t, err)
	return result
}

// rows returns the records of an answer without what the other ends saw.
func rows(result storage.FlowResult) []flow.Record {
	var records []flow.Record
	for _, f := range result.Flows {
		records = append(records, f.Record)
	}
	return records
}

func status(node string, started, time int, lost uint64) flow.NetworkStatus {
	return flow.NetworkStatus{
		Node: node, Started: at(started), Time: at(time), Interval: 10e9,
		LostPackets: lost, LostBytes: 100 * lost, LostEvents: 2 * lost,
	}
}

var addr = netip.MustParseAddrPort
