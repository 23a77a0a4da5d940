package embedded

import (
	"time"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/gpu"
	"github.com/orb8/orb8/internal/storage"
	"github.com/orb8/orb8/internal/syscalls"
)

// missingIntervals is how many reports a node may be late before it counts as missing.
const missingIntervals = 3

// node is what the receivers of a node last reported. One that does not run has never been seen.
type node struct {
	network  flow.NetworkStatus
	syscalls syscalls.Status
	gpu      gpu.Status
	flows    reports
	calls    reports
	scrapes  reports
}

func (n *node) flowReports() *reports { return &n.flows }
func (n *node) callReports() *reports { return &n.calls }

// anyReports are those of the node as a whole: whether it reports, and no losses.
func (n *node) anyReports() *reports {
	latest := n.latest()
	return &reports{last: latest.last, seen: latest.seen}
}

// latest are the reports of the receiver that was heard of last.
func (n *node) latest() *reports {
	latest := &n.flows
	for _, r := range []*reports{&n.calls, &n.scrapes} {
		if r.seen.After(latest.seen) {
			latest = r
		}
	}
	return latest
}

// reports are what all statuses of a receiver have told.
type reports struct {
	last report
	// seen is when the last one arrived.
	seen   time.Time
	losses losses
}

// report is what every status tells. Its loss is since started.
type report struct {
	time, started time.Time
	interval      time.Duration
	loss          storage.Loss
}

// update takes a report unless it is an older one. The counters of a report run since its start: a new start is a new run,
// and all that it has counted is new.
func (r *reports) update(status report, now time.Time) bool {
	if status.time.Before(r.last.time) {
		return false
	}
	from, before := status.started, storage.Loss{}
	if status.started.Equal(r.last.started) {
		from, before = r.last.time, r.last.loss
	}
	r.losses.add(span{from: from.UnixNano(), to: status.time.UnixNano(), loss: storage.Loss{
		Packets: since(before.Packets, status.loss.Packets),
		Bytes:   since(before.Bytes, status.loss.Bytes),
		Events:  since(before.Events, status.loss.Events),
		Calls:   since(before.Calls, status.loss.Calls),
	}})
	r.last, r.seen = status, now
	return true
}

// since is the growth of a counter; a counter that shrank without a restart tells nothing.
func since(before, after uint64) uint64 {
	if after < before {
		return 0
	}
	return after - before
}

// missing tells whether there should have been another report before now.
func (r *reports) missing(now time.Time) bool {
	return now.Sub(r.seen) > missingIntervals*r.last.interval
}
