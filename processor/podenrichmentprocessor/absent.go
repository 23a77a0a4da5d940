package podenrichmentprocessor

import (
	"net/netip"
	"sync"
	"time"
)

const (
	// absentFor is for how long what was waited for in vain is not waited for again.
	absentFor = 30 * time.Second
	// maxAbsent bounds how many are remembered.
	maxAbsent = 65536
)

// absentee is a pod's UID, a container's id or an address.
type absentee struct {
	id   string
	addr netip.Addr
}

// absentees are what was waited for in vain, so that the next record does not wait for it as well.
type absentees struct {
	mu    sync.Mutex
	until map[absentee]time.Time
}

func newAbsentees() *absentees { return &absentees{until: map[absentee]time.Time{}} }

func (a *absentees) add(who absentee, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.until) >= maxAbsent {
		clear(a.until)
	}
	a.until[who] = now.Add(absentFor)
}

func (a *absentees) has(who absentee, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	until, ok := a.until[who]
	if ok && now.After(until) {
		delete(a.until, who)
		return false
	}
	return ok
}
