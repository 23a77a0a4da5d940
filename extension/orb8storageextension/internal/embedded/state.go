package embedded

import (
	"errors"
	"sync"
)

// What may fail, each on its own.
const (
	journaling = iota
	sealing
	activities
)

// state is whether writing to the disk works.
type state struct {
	report func(error)

	mu     sync.Mutex
	errs   [activities]error
	failed bool
	// changed is closed when something is set.
	changed chan struct{}
}

// set notes how an activity went the last time, and reports when writing as a whole begins to fail or to work again.
func (s *state) set(activity int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil && s.errs[activity] == nil && activity == journaling {
		return // nobody waits for it
	}
	s.errs[activity] = err
	close(s.changed)
	s.changed = make(chan struct{})
	if all := errors.Join(s.errs[:]...); (all != nil) != s.failed {
		s.failed = all != nil
		s.report(all)
	}
}

// get returns a channel that is closed when there is news, and how an activity went the last time.
func (s *state) get(activity int) (<-chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed, s.errs[activity]
}
