package syscallanomalyprocessor

import (
	"math"
	"time"

	"github.com/orb8/orb8/internal/syscalls"
)

const (
	// maxCalls bounds a profile: no table has so many, but any number can be called.
	maxCalls = 1024
	// maxCooldowns bounds what a profile remembers of its reports.
	maxCooldowns = 4096
	// leastWeight is that of one interval in a baseline that has seen many: with intervals of 5 s half of what the baseline says is
	// less than an hour old.
	leastWeight = 0.001
)

// profile is what was learned of a workload.
type profile struct {
	// key is empty for the one that stands for all workloads without a profile.
	key, workload string
	first, last   time.Time
	// learned is when the learning window ended; zero while it has not.
	learned   time.Time
	intervals int64
	calls     map[syscalls.Call]*history
	// usual is what met a rule while it was learned, and when it last did.
	usual     map[usage]time.Time
	cooldowns map[usage]*cooldown
	// changed says that something is new since the last save, touched that only times and rates are.
	changed, touched bool
}

// usage is a call by which a workload met a rule.
type usage struct {
	rule string
	call syscalls.Call
}

// cooldown holds back what was reported a short time ago.
type cooldown struct {
	reported time.Time
	held     int64
}

// history is what a profile knows of a call.
type history struct {
	first, last time.Time
	rate        baseline
}

// baseline is what is usual of a call in one container, over the intervals in which it was made.
type baseline struct {
	intervals int64
	// mean and variance are of calls a second, share of the calls of the container.
	mean, variance, share float64
}

func newProfile(key string, now time.Time) *profile {
	p := &profile{
		key: key, workload: display(key), first: now, last: now, changed: true,
		calls: map[syscalls.Call]*history{}, usual: map[usage]time.Time{}, cooldowns: map[usage]*cooldown{},
	}
	if key == "" {
		p.workload = "unknown"
	}
	return p
}

// profiled is false for the profile that stands for all workloads without one: it learns nothing.
func (p *profile) profiled() bool { return p.key != "" }

func (p *profile) learning() bool { return p.profiled() && p.learned.IsZero() }

// seen takes note of the workload's sign of life, and ends its learning window when it is time.
func (p *profile) seen(now time.Time, l Learning) {
	p.last, p.touched = now, true
	if p.learning() && p.intervals >= l.MinIntervals && now.Sub(p.first) >= l.Window {
		p.learned, p.changed = now, true
	}
}

// add returns false if the profile is full.
func (p *profile) add(c syscalls.Call, now time.Time) (*history, bool) {
	if len(p.calls) >= maxCalls {
		return nil, false
	}
	h := &history{first: now, last: now}
	p.calls[c] = h
	p.changed = true
	return h, true
}

// learnUsual remembers that the workload met a rule while it was learned, and tells whether it had before.
func (p *profile) learnUsual(u usage, now time.Time) bool {
	_, before := p.usual[u]
	if !before && len(p.usual) >= maxCalls {
		return false
	}
	p.usual[u] = now
	p.changed = p.changed || !before
	return before
}

// cool returns false if the same was reported less than d ago, else how many were held back since.
func (p *profile) cool(u usage, now time.Time, d time.Duration) (held int64, ok bool) {
	c := p.cooldowns[u]
	if c == nil {
		if len(p.cooldowns) >= maxCooldowns {
			p.forgetCooldowns(now, d)
		}
		c = &cooldown{}
		p.cooldowns[u] = c
	} else if now.Sub(c.reported) < d {
		c.held++
		return 0, false
	}
	held = c.held
	c.reported, c.held = now, 0
	return held, true
}

// forgetCooldowns makes room. It forgets all if none has ended: better to report twice than to grow.
func (p *profile) forgetCooldowns(now time.Time, d time.Duration) {
	for u, c := range p.cooldowns {
		if now.Sub(c.reported) >= d {
			delete(p.cooldowns, u)
		}
	}
	if len(p.cooldowns) >= maxCooldowns {
		clear(p.cooldowns)
	}
}

// far tells whether a rate is far out of the baseline.
func (b *baseline) far(rate, share float64, r *Rate) bool {
	return b.intervals >= r.Intervals &&
		rate >= r.Minimum &&
		rate > b.mean*r.Factor &&
		rate > b.mean+r.Deviations*math.Sqrt(b.variance) &&
		share > b.share*r.Share
}

// observe moves the baseline towards what was measured, the less the more it has seen. A rate far out counts as ceiling at most,
// so that one burst does not become what is usual, but a new level does in time.
func (b *baseline) observe(rate, share, ceiling float64) {
	b.intervals++
	weight := max(1/float64(b.intervals), leastWeight)
	d := min(rate, ceiling) - b.mean
	b.mean += weight * d
	b.variance = (1 - weight) * (b.variance + weight*d*d)
	b.share += weight * (share - b.share)
}
