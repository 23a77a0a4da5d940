package cgroup

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"
)

const (
	// keepRemoved is how many removed cgroups are remembered: at half a kilobyte each, 8 MB at most.
	keepRemoved = 16384
	// maxUnknown bounds how many unknown ids are remembered as such.
	maxUnknown = 8192
	// scanInterval is the shortest time between two scans for ids that nobody knows. A scan takes about 20 µs a cgroup.
	scanInterval = time.Second
)

// Resolver tells who a cgroup id belongs to. It reads the hierarchy once and then follows it by inotify, so that a
// cgroup is known from the moment it is made, however short its life, and remembered after its end. Unlike opening
// a directory by its id this takes no capability. Where inotify has reached its limits, the hierarchy is read again
// when an unknown id is asked for; a cgroup that does not live until then stays unknown.
//
// Its methods are safe for concurrent use.
type Resolver struct {
	root   string
	logger *zap.Logger
	index  *index
	done   chan struct{}
	warned sync.Once

	// mu guards what follows, and that only one goroutine reads the hierarchy.
	mu      sync.Mutex
	watcher *watcher
	scanned time.Time
	// unknown holds ids that were not found, and when they were asked for first.
	unknown map[uint64]time.Time
}

// NewResolver reads the hierarchy at root, which FindMount has found, and follows it until Close. It fails if root
// cannot be read.
func NewResolver(root string, logger *zap.Logger) (*Resolver, error) {
	w, err := newWatcher()
	r := newResolver(root, logger, w)
	if err != nil {
		r.warn(err)
	}
	r.mu.Lock()
	err = r.scanAll()
	r.mu.Unlock()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cannot read the cgroups: %w", err), r.Close())
	}
	return r, nil
}

// newResolver returns a resolver that knows nothing yet. The watcher may be nil.
func newResolver(root string, logger *zap.Logger, w *watcher) *Resolver {
	r := &Resolver{
		root:    root,
		logger:  logger,
		index:   newIndex(keepRemoved),
		done:    make(chan struct{}),
		watcher: w,
		unknown: map[uint64]time.Time{},
	}
	if w != nil {
		go r.follow(w)
	}
	return r
}

// Resolve returns who the cgroup with the id is, or was, and false if that is unknown. The caller must not change the
// identity.
func (r *Resolver) Resolve(id uint64) (*Identity, bool) {
	if identity, ok := r.index.get(id); ok {
		return identity, true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.search(id)
	return r.index.get(id)
}

// Len returns how many cgroups are known.
func (r *Resolver) Len() int { return r.index.len() }

// Close ends the following of the hierarchy. What is known stays known.
func (r *Resolver) Close() error {
	r.mu.Lock()
	w := r.watcher
	r.watcher = nil
	r.mu.Unlock()
	if w == nil {
		return nil
	}
	err := w.close()
	<-r.done
	return err
}

// search reads the hierarchy for an id that the index lacks, unless it did so a moment ago or since the id was asked
// for first. As no cgroup ever gets an id that was asked for earlier, a second search would be in vain.
func (r *Resolver) search(id uint64) {
	asked, ok := r.unknown[id]
	if ok && r.scanned.After(asked) {
		return
	}
	now := time.Now()
	if !ok {
		if len(r.unknown) >= maxUnknown {
			clear(r.unknown)
		}
		r.unknown[id] = now
	}
	if now.Sub(r.scanned) >= scanInterval {
		// The root was there at the start; should it go, every id is unknown, which is what callers count.
		_ = r.scanAll()
	}
}

// scanAll brings the index up to date with the hierarchy. The caller holds r.mu.
func (r *Resolver) scanAll() error {
	r.scanned = time.Now()
	r.index.beginRound()
	if err := r.scan("/"); err != nil {
		return err
	}
	for _, path := range r.index.endRound() {
		r.forget(path)
	}
	return nil
}

// scan puts the directory at path and those below it into the index. It fails if it cannot read the first; one below
// may be gone by now.
func (r *Resolver) scan(path string) error {
	full := join(r.root, path[1:])
	if r.watcher != nil {
		// Before the directory is read: what is made later is announced.
		if err := r.watcher.add(full, path); err != nil && !os.IsNotExist(err) {
			r.warn(err)
		}
	}
	dir, err := os.Open(full)
	if err != nil {
		return err
	}
	info, statErr := dir.Stat()
	entries, readErr := dir.ReadDir(-1)
	if err := errors.Join(statErr, readErr, dir.Close()); err != nil {
		return err
	}
	r.index.put(info.Sys().(*syscall.Stat_t).Ino, path)
	for _, e := range entries {
		if e.IsDir() {
			_ = r.scan(join(path, e.Name()))
		}
	}
	return nil
}

func (r *Resolver) forget(path string) {
	r.index.remove(path)
	if r.watcher != nil {
		r.watcher.remove(path)
	}
}

// follow applies changes to the index until the watcher is closed.
func (r *Resolver) follow(w *watcher) {
	defer close(r.done)
	for {
		events, err := w.read()
		if err != nil {
			return
		}
		r.mu.Lock()
		w.decode(events, r.apply)
		r.mu.Unlock()
	}
}

func (r *Resolver) apply(c change) {
	switch {
	case c.lost:
		_ = r.scanAll()
	case c.made:
		_ = r.scan(c.path)
	default:
		r.forget(c.path)
	}
}

// warn says once that not every cgroup is watched.
func (r *Resolver) warn(err error) {
	r.warned.Do(func() {
		r.logger.Warn("cgroups are not all watched: containers that live less than a reporting interval may stay unnamed",
			zap.Error(err))
	})
}
