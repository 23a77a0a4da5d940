package embedded

import "github.com/orb8/orb8/extension/orb8storageextension/internal/journal"

// recentBatches is how many batches are remembered at least, and half of how many at most: at 100 batches a second, which is
// 50,000 records, five minutes. Senders give up before that, or have told their queue.
const recentBatches = 1 << 15

// recent are the batches that came last: one that comes again is known by it.
type recent struct {
	newer, older map[journal.ID]struct{}
}

func (r *recent) has(id journal.ID) bool {
	if _, known := r.newer[id]; known {
		return true
	}
	_, known := r.older[id]
	return known
}

// add returns false where the batch is known.
func (r *recent) add(id journal.ID) bool {
	if r.has(id) {
		return false
	}
	if r.newer == nil || len(r.newer) >= recentBatches {
		r.newer, r.older = make(map[journal.ID]struct{}), r.newer
	}
	r.newer[id] = struct{}{}
	return true
}

// all returns those that are remembered, the older half first.
func (r *recent) all() []journal.ID {
	ids := make([]journal.ID, 0, len(r.newer)+len(r.older))
	for id := range r.older {
		ids = append(ids, id)
	}
	for id := range r.newer {
		ids = append(ids, id)
	}
	return ids
}
