package engine

import "sync"

// state is whether writing to the engine works.
type state struct {
	report func(error)

	mu     sync.Mutex
	failed bool
}

// set notes how the last write went, and reports a change.
func (s *state) set(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if failed := err != nil; failed != s.failed {
		s.failed = failed
		s.report(err)
	}
}
