package syscallanomalyprocessor

import (
	"slices"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/orb8/orb8/internal/syscalls"
)

const (
	// maxContainers is of how many containers the recent events are remembered; those that have been silent for longest go first.
	maxContainers = 4096
	// maxRecent bounds the calls of which a container's latest event is remembered, maxSteps the first halves of each rule's sequences.
	maxRecent = 128
	maxSteps  = 32
)

// containerKey is a cgroup of a node.
type containerKey struct {
	node   string
	cgroup int64
}

// container is what is remembered of a container's recent events.
type container struct {
	// recent has the latest event of calls that counts may meet a rule by, until the counts of that time have come.
	recent map[syscalls.Call]recent
	// steps are the first halves of sequences, the oldest first.
	steps []step
}

// recent is the latest event of a call.
type recent struct {
	time time.Time
	// excused tells that an exception was for all of them since the last counts.
	excused bool
}

// step is the first half of a sequence.
type step struct {
	rule  *rule
	event syscalls.Event
}

// containers is bounded by maxContainers.
type containers struct {
	lru *simplelru.LRU[containerKey, *container]
}

func newContainers() (*containers, error) {
	lru, err := simplelru.NewLRU[containerKey, *container](maxContainers, nil)
	return &containers{lru}, err
}

func (c *containers) get(key containerKey) *container {
	if found, ok := c.lru.Get(key); ok {
		return found
	}
	found := &container{recent: map[syscalls.Call]recent{}}
	c.lru.Add(key, found)
	return found
}

// note remembers an event.
func (c *container) note(call syscalls.Call, at time.Time, excused bool) {
	before, known := c.recent[call]
	if !known && len(c.recent) >= maxRecent {
		return
	}
	c.recent[call] = recent{time: at, excused: excused && (!known || before.excused)}
}

// during returns the latest event of a call, if it was in that interval or after.
func (c *container) during(call syscalls.Call, start time.Time) (recent, bool) {
	found, ok := c.recent[call]
	return found, ok && !found.time.Before(start)
}

// forget drops the events of the time whose counts have come.
func (c *container) forget(end time.Time) {
	for call, r := range c.recent {
		if !r.time.After(end) {
			delete(c.recent, call)
		}
	}
}

// begin remembers the first half of a sequence. Of too many of one rule the oldest goes, and all that are too old.
func (c *container) begin(s step) {
	c.steps = slices.DeleteFunc(c.steps, func(old step) bool { return s.event.Time.Sub(old.event.Time) > old.rule.After.Within })
	same, oldest := 0, -1
	for i := range c.steps {
		if c.steps[i].rule == s.rule {
			if same++; oldest < 0 {
				oldest = i
			}
		}
	}
	if same >= maxSteps {
		c.steps = slices.Delete(c.steps, oldest, oldest+1)
	}
	c.steps = append(c.steps, s)
}

// begun returns the latest first half of a sequence whose second is e, nil if there is none.
func (c *container) begun(r *rule, e *syscalls.Event) *syscalls.Event {
	for i := len(c.steps) - 1; i >= 0; i-- {
		if s := &c.steps[i]; s.rule == r && r.After.follows(&s.event, e) {
			return &s.event
		}
	}
	return nil
}

// follows tells whether second can be what comes after first.
func (a *After) follows(first, second *syscalls.Event) bool {
	if d := second.Time.Sub(first.Time); d < 0 || d > a.Within {
		return false
	}
	if a.Same != sameContainer && first.Identity.PID != second.Identity.PID {
		return false
	}
	for mine, theirs := range a.Match {
		value, ok := argument(second, mine)
		if other, known := argument(first, theirs); !ok || !known || value != other {
			return false
		}
	}
	return true
}

func argument(e *syscalls.Event, name string) (string, bool) {
	for _, a := range e.Arguments {
		if a.Name == name {
			return a.Value, true
		}
	}
	return "", false
}
