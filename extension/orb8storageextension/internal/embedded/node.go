package embedded

import (
	"time"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/storage"
)

// missingIntervals is how many reports a node may be late before it counts as missing.
const missingIntervals = 3

// node is what a node last reported, and when it lost what.
type node struct {
	status flow.NetworkStatus
	// seen is when the status arrived.
	seen   time.Time
	losses losses
}

// update takes a newer status. The counters of a status run since its Started: a new Started is a new run, and all
// that it has counted is new.
func (n *node) update(status flow.NetworkStatus, now time.Time) {
	if status.Time.Before(n.status.Time) {
		return
	}
	from, before := status.Started, storage.Loss{}
	if status.Started.Equal(n.status.Started) {
		from, before = n.status.Time, lossOf(&n.status)
	}
	after := lossOf(&status)
	n.losses.add(span{
		from: from.UnixNano(),
		to:   status.Time.UnixNano(),
		loss: storage.Loss{
			Packets: since(before.Packets, after.Packets),
			Bytes:   since(before.Bytes, after.Bytes),
			Events:  since(before.Events, after.Events),
		},
	})
	n.status, n.seen = status, now
}

func lossOf(s *flow.NetworkStatus) storage.Loss {
	return storage.Loss{Packets: s.LostPackets, Bytes: s.LostBytes, Events: s.LostEvents}
}

// since is the growth of a counter; a counter that shrank without a restart tells nothing.
func since(before, after uint64) uint64 {
	if after < before {
		return 0
	}
	return after - before
}

// missing tells whether the node should have reported again before now.
func (n *node) missing(now time.Time) bool {
	return now.Sub(n.seen) > missingIntervals*n.status.Interval
}
