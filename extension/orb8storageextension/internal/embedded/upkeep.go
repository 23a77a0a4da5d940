package embedded

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/orb8/orb8/extension/orb8storageextension/internal/block"
)

// mergePause is how long blocks are left as they are after merging them failed: the disk may be full.
const mergePause = time.Minute

const (
	// fanIn is how many blocks of about one size are merged to one.
	fanIn = 4
	// maxBlockRows bounds a merged block, and blockParts what it may span and take: one in so many of the retention, and of the bytes. What
	// is too old or too much goes a block at a time.
	maxBlockRows = 1 << 20
	blockParts   = 8
)

// keep writes and drops blocks until the store is closed.
func (d *disk) keep(ctx context.Context) {
	tick := time.NewTicker(upkeepInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.wake:
		case <-tick.C:
		}
		d.upkeep()
	}
}

// tidy merges blocks until the store is closed. Heads are written meanwhile: a merge takes longer than they may wait.
func (d *disk) tidy(ctx context.Context) {
	tick := time.NewTicker(upkeepInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if now := d.store.settings.Now(); now.Before(d.mergeAfter) {
			continue
		} else if err := errors.Join(d.index(ctx), d.compact(ctx)); err != nil {
			d.mergeAfter = now.Add(mergePause)
			d.Logger.Error("Blocks could not be indexed or merged, and will not be for a while", zap.Duration("pause", mergePause), zap.Error(err))
		}
	}
}

// sync syncs the journal at its interval.
func (d *disk) sync(ctx context.Context) {
	tick := time.NewTicker(d.FsyncInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := d.journal.Sync(d.journal.Appended()); err != nil {
				d.state.set(journaling, err)
			}
		}
	}
}

// upkeep writes blocks as long as they are due, and drops old ones.
func (d *disk) upkeep() {
	d.keeping.Lock()
	defer d.keeping.Unlock()
	for due := true; due; due = d.due() {
		var err error
		if d.due() {
			err = d.seal()
			d.state.set(sealing, err)
		}
		if trimErr := d.trim(); trimErr != nil {
			d.Logger.Error("Old blocks could not be dropped", zap.Error(trimErr))
		}
		if err != nil {
			return
		}
	}
}

// due tells whether what is in memory must go to a block: it is much, or old, or did not get there the last time.
func (d *disk) due() bool {
	if _, err := d.state.get(sealing); err != nil {
		return true
	}
	d.writing.Lock()
	defer d.writing.Unlock()
	return d.head() >= d.HeadBytes || !d.oldest.IsZero() && d.store.settings.Now().Sub(d.oldest) >= d.HeadAge
}

// seal writes what is in memory to blocks, one a kind, and then drops the journal of it. A block that was written stays when
// another cannot be: the journal is read for the others alone.
func (d *disk) seal() error {
	type part struct {
		shelf
		segments int
		write    func(string, block.Name) (*block.File, error)
	}
	var parts []part
	d.writing.Lock()
	next, err := d.journal.Cut()
	if err != nil {
		d.writing.Unlock()
		return err
	}
	oldest, batches := d.oldest, d.recent.all()
	d.oldest = time.Time{}
	d.store.mu.Lock()
	for _, s := range d.store.histories() {
		if n, write := s.begin(); n > 0 {
			parts = append(parts, part{s, n, write})
		}
	}
	d.store.mu.Unlock()
	d.writing.Unlock()

	var errs error
	for _, p := range parts {
		name := block.Name{Kind: p.kind(), From: d.from(p.shelf), To: next - 1}
		file, err := p.write(d.blocks, name)
		if err != nil {
			errs = errors.Join(errs, err)
			continue
		}
		d.store.mu.Lock()
		p.sealed(file, p.segments)
		d.store.mu.Unlock()
	}
	if errs == nil {
		d.sealedBatches = batches
		if errs = d.save(); errs == nil {
			errs = d.journal.Truncate(next)
		}
	}
	if errs != nil {
		d.writing.Lock()
		d.oldest = oldest
		d.writing.Unlock()
	}
	return errs
}

// from returns the first segment of the journal that may be in no block of a kind.
func (d *disk) from(s shelf) int {
	d.store.mu.RLock()
	defer d.store.mu.RUnlock()
	if files := *s.files(); len(files) > 0 {
		return files[len(files)-1].Name.To + 1
	}
	return 0
}

// trim drops the blocks that are too old, and the oldest where all take too much.
func (d *disk) trim() error {
	s := d.store
	var dropped []*block.File
	s.mu.Lock()
	before, left := s.horizon(s.settings.Now()), s.settings.MaxBytes
	for _, shelf := range s.histories() {
		shelf.lost().expire(before)
		dropped = append(dropped, drop(shelf, func(f *block.File) bool { return f.Meta.Written >= before })...)
		stored, limit := shelf.totals().stored, left
		if share, limited := shares[shelf.kind()]; limited {
			limit = s.settings.MaxBytes / share
		}
		evicted := drop(shelf, func(f *block.File) bool {
			if stored <= limit || f == (*shelf.files())[len(*shelf.files())-1] {
				return true
			}
			stored -= f.Stored()
			return false
		})
		for _, f := range evicted {
			shelf.evicted(f)
		}
		dropped = append(dropped, evicted...)
		left -= min(left, stored)
	}
	s.mu.Unlock()
	if len(dropped) == 0 {
		return nil
	}
	var errs error
	for _, f := range dropped {
		errs = errors.Join(errs, f.Remove())
	}
	return errors.Join(errs, d.save())
}

// index makes the indexes that blocks lack.
func (d *disk) index(ctx context.Context) error {
	d.merging.Lock()
	defer d.merging.Unlock()
	d.store.mu.RLock()
	files := slices.Clone(d.store.flows.blocks)
	for _, f := range files {
		f.Use()
	}
	d.store.mu.RUnlock()
	defer free(files)
	for _, f := range files {
		if ctx.Err() != nil || indexOf(f) != nil {
			continue
		}
		path := block.CompanionPath(d.blocks, f.Name)
		if err := indexBlock(path, f, d.store.giveWay); err != nil {
			return fmt.Errorf("cannot write the index %s: %w", path, err)
		}
		if !d.store.attach(d.blocks, f) {
			return fmt.Errorf("cannot read the index %s, which was just written", path)
		}
	}
	return nil
}

// compact merges blocks until there is no run of a few of about one size.
func (d *disk) compact(ctx context.Context) error {
	d.merging.Lock()
	defer d.merging.Unlock()
	for _, s := range d.store.histories() {
		for ctx.Err() == nil {
			files := d.mergeable(s)
			if files == nil {
				break
			}
			if err := d.merge(s, files); err != nil {
				return err
			}
		}
	}
	return nil
}

// mergeable returns the oldest run of blocks that are worth merging.
func (d *disk) mergeable(s shelf) []*block.File {
	d.store.mu.RLock()
	defer d.store.mu.RUnlock()
	files := *s.files()
	for i := 0; i+fanIn <= len(files); i++ {
		if run := files[i : i+fanIn]; worthMerging(run, d.store.settings.Retention/blockParts, d.store.settings.MaxBytes/blockParts) {
			return slices.Clone(run)
		}
	}
	return nil
}

func worthMerging(run []*block.File, maxSpan time.Duration, maxBytes uint64) bool {
	size := func(f *block.File) int { return (bits.Len64(f.Meta.Rows) + 1) / 2 }
	var rows, bytes uint64
	for _, f := range run {
		if size(f) != size(run[0]) {
			return false
		}
		rows, bytes = rows+f.Meta.Rows, bytes+f.Stored()
	}
	return rows <= maxBlockRows && bytes <= maxBytes && run[len(run)-1].Meta.Written-run[0].Meta.Written <= int64(maxSpan)
}

// merge puts one block in the place of several. A process that ends before the last of them is gone finds them covered by the one.
func (d *disk) merge(s shelf, files []*block.File) error {
	first, last := files[0].Name, files[len(files)-1].Name
	merged, err := s.merge(d.blocks, block.Name{Kind: s.kind(), From: first.From, To: last.To}, files)
	if err != nil {
		var damage *block.DamageError
		if errors.As(err, &damage) {
			return errors.Join(err, d.setAside(s, damage.File))
		}
		return err
	}
	d.store.mu.Lock()
	all := s.files()
	at := slices.Index(*all, files[0])
	there := at >= 0 && at+len(files) <= len(*all) && slices.Equal((*all)[at:at+len(files)], files)
	if there {
		*all = slices.Replace(slices.Clone(*all), at, at+len(files), merged)
	}
	d.store.mu.Unlock()
	if !there { // one of them was dropped, or a query found it damaged
		return merged.Remove()
	}
	var errs error
	for _, f := range files {
		errs = errors.Join(errs, f.Remove())
	}
	return errs
}

// setAside takes a block out that cannot be read. What it held is lost, and told as such.
func (d *disk) setAside(s shelf, f *block.File) error {
	d.store.mu.Lock()
	all := s.files()
	at := slices.Index(*all, f)
	if at >= 0 {
		*all = slices.Delete(slices.Clone(*all), at, at+1)
		s.evicted(f)
	}
	d.store.mu.Unlock()
	if at < 0 {
		return nil // another query was faster
	}
	defer f.Close()
	return block.SetAside(d.blocks, f.Name)
}
