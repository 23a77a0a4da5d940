package syscallanomalyprocessor

import (
	"hash/fnv"
	"time"
)

// minIdle is how long a workload must have been silent before a new one may take the place of its profile. Less would make
// workloads that are there together displace each other all the time, and none would ever be learned.
const minIdle = 10 * time.Minute

// buckets is in how many values the profiles are stored: a change rewrites one of them.
const buckets = 256

// profiles keeps the profiles. Their number is bounded.
type profiles struct {
	max   int
	byKey map[string]*profile
	// other stands for the workloads that have none. They share its cooldowns.
	other *profile
	// removed are the buckets that have lost a profile since the last save.
	removed [buckets]bool
}

func newProfiles(limit int) *profiles {
	return &profiles{max: limit, byKey: map[string]*profile{}, other: newProfile("", time.Time{})}
}

// bucketOf returns where a profile is stored.
func bucketOf(key string) int {
	h := fnv.New32a()
	h.Write([]byte(key))
	return int(h.Sum32() % buckets)
}

// get returns the profile of a workload, a new one if need be. If there is no room, it returns p.other. displaced tells that
// another profile has made room.
func (p *profiles) get(key []byte, now time.Time) (found *profile, displaced bool) {
	if found, ok := p.byKey[string(key)]; ok {
		return found, false
	}
	if len(key) == 0 {
		return p.other, false
	}
	if len(p.byKey) >= p.max {
		idle := p.longestIdle()
		if now.Sub(idle.last) < minIdle {
			return p.other, false
		}
		p.remove(idle)
		displaced = true
	}
	found = newProfile(string(key), now)
	p.byKey[found.key] = found
	return found, displaced
}

func (p *profiles) longestIdle() *profile {
	var idle *profile
	for _, candidate := range p.byKey {
		if idle == nil || candidate.last.Before(idle.last) {
			idle = candidate
		}
	}
	return idle
}

func (p *profiles) remove(gone *profile) {
	delete(p.byKey, gone.key)
	p.removed[bucketOf(gone.key)] = true
}

// expire removes the profiles of workloads that were not seen since before, and returns how many.
func (p *profiles) expire(before time.Time) int64 {
	var n int64
	for _, candidate := range p.byKey {
		if candidate.last.Before(before) {
			p.remove(candidate)
			n++
		}
	}
	return n
}

func (p *profiles) learning() int64 {
	var n int64
	for _, candidate := range p.byKey {
		if candidate.learning() {
			n++
		}
	}
	return n
}
