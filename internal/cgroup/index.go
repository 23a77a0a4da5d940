package cgroup

import "sync"

// index knows the directories of a hierarchy by inode number. It holds all that exist and the last few that did.
//
// The inode number of a cgroup v2 directory is its id: 32 bits that are given out in turn, and above them 32 that
// count how often those have wrapped. An id is therefore never used again, nor is a directory ever renamed: what the
// index once knew stays true after the cgroup is gone, and needs no time to live.
type index struct {
	mu   sync.RWMutex
	byID map[uint64]*entry
	// live holds the directories that exist, by path.
	live map[string]*entry
	// removed is a ring of the ids that were removed last; next is the oldest.
	removed []uint64
	next    int
	// round counts full scans.
	round uint64
}

type entry struct {
	Identity
	id      uint64
	removed bool
	// round is the full scan that saw the directory last.
	round uint64
}

// newIndex returns an index that remembers as many removed directories as keep says.
func newIndex(keep int) *index {
	return &index{byID: map[uint64]*entry{}, live: map[string]*entry{}, removed: make([]uint64, keep)}
}

// get returns the identity of an id. The caller must not change it.
func (x *index) get(id uint64) (*Identity, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	e, ok := x.byID[id]
	if !ok {
		return nil, false
	}
	return &e.Identity, true
}

// put adds a directory that exists.
func (x *index) put(id uint64, path string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if old := x.live[path]; old != nil {
		if old.id == id {
			old.round = x.round
			return
		}
		x.retire(old)
	}
	e := &entry{Identity: Parse(path), id: id, round: x.round}
	x.byID[id] = e
	x.live[path] = e
}

// remove is told that there is no directory at path any more.
func (x *index) remove(path string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if e := x.live[path]; e != nil {
		x.retire(e)
	}
}

func (x *index) retire(e *entry) {
	delete(x.live, e.Path)
	e.removed = true
	if oldest := x.byID[x.removed[x.next]]; oldest != nil && oldest.removed && oldest != e {
		delete(x.byID, oldest.id)
	}
	x.removed[x.next] = e.id
	x.next = (x.next + 1) % len(x.removed)
}

// beginRound starts a full scan: of the directories that exist, those which are not put before endRound are stale.
func (x *index) beginRound() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.round++
}

// endRound ends a full scan and returns the paths of the directories that it did not see.
func (x *index) endRound() []string {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var stale []string
	for path, e := range x.live {
		if e.round != x.round {
			stale = append(stale, path)
		}
	}
	return stale
}

// len returns how many directories the index knows.
func (x *index) len() int {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return len(x.byID)
}
