package embedded

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/orb8/orb8/extension/orb8storageextension/internal/block"
	"github.com/orb8/orb8/extension/orb8storageextension/internal/journal"
)

// MinHeadBytes is the least memory that records may take before they go to a block: every kind of them takes a chunk.
const MinHeadBytes = 1 << 20

// upkeepInterval is how often the store looks what is due: blocks to be written again after a failure, merged or dropped.
const upkeepInterval = time.Second

// overflow is how many heads may be in memory: one that is filled, and others that are written. A node brings what an interval had
// at once.
const overflow = 4

// DiskSettings say where a store keeps its records.
type DiskSettings struct {
	// Directory is made if it is not there. It belongs to one store at a time.
	Directory string
	// HeadBytes is the memory that records take, at most four times over, and HeadAge how long they are there, before they go to a
	// block.
	HeadBytes uint64
	HeadAge   time.Duration
	// FsyncInterval is how often the journal is synced; 0 is before every write returns.
	FsyncInterval time.Duration
	Logger        *zap.Logger
	// Report is told when writing fails, and by nil that it does not any more.
	Report func(error)
}

// disk is what makes a store outlive its process.
type disk struct {
	DiskSettings
	store *Store
	lock  *os.File
	// blocks is the directory of the blocks.
	blocks  string
	journal *journal.Journal
	buffers sync.Pool

	// writing keeps the journal and the memory in the same order. It is taken before the store's own lock.
	writing sync.Mutex
	recent  recent
	// sealedBatches are those of recent that were in the journal up to the last seal.
	sealedBatches []journal.ID
	// oldest is when the oldest record came that is in no block; zero where there is none.
	oldest time.Time

	// keeping is held while blocks are written and dropped, merging while they are merged.
	keeping sync.Mutex
	merging sync.Mutex
	// mergeAfter is when blocks are merged again after that has failed.
	mergeAfter time.Time
	wake       chan struct{}
	stop       context.CancelFunc
	running    sync.WaitGroup

	state state
}

// Open opens the store of a directory, with all that it held.
func Open(settings Settings) (*Store, error) {
	s := New(settings)
	d := &disk{
		DiskSettings: *settings.Disk, store: s, blocks: filepath.Join(settings.Disk.Directory, "blocks"), wake: make(chan struct{}, 1),
	}
	d.state = state{report: d.Report, changed: make(chan struct{})}
	s.disk = d
	if err := d.open(); err != nil {
		return nil, fmt.Errorf("cannot open the store in %s: %w", d.Directory, errors.Join(err, d.release()))
	}
	ctx, stop := context.WithCancel(context.Background())
	d.stop = stop
	d.running.Go(func() { d.keep(ctx) })
	d.running.Go(func() { d.tidy(ctx) })
	if d.FsyncInterval > 0 {
		d.running.Go(func() { d.sync(ctx) })
	}
	return s, nil
}

func (d *disk) open() (err error) {
	if err := os.MkdirAll(d.blocks, 0o750); err != nil {
		return err
	}
	if d.lock, err = os.OpenFile(filepath.Join(d.Directory, "LOCK"), os.O_CREATE|os.O_RDWR, 0o640); err != nil {
		return err
	}
	if err := syscall.Flock(int(d.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("another collector uses it: give each a directory of its own (%w)", err)
	}
	covered, err := d.openBlocks()
	if err != nil {
		return err
	}
	if err := d.restore(); err != nil {
		return err
	}
	dir := filepath.Join(d.Directory, "journal")
	if err := journal.Begin(dir, covered.last()); err != nil {
		return err
	}
	damages, err := journal.Replay(dir, func(segment int, record []byte) error {
		b, err := journal.Decode(record)
		if err != nil {
			return err
		}
		d.replay(segment, b, covered)
		return nil
	})
	if err != nil {
		return err
	}
	for _, damage := range damages {
		d.Logger.Warn("The end of a journal could not be read: what was there was not acknowledged, or the disk has lost it",
			zap.Error(damage))
	}
	d.journal, err = journal.Open(dir)
	return err
}

// covered is the last segment of the journal that is in the blocks of each kind.
type covered map[string]int

func (c covered) last() int {
	last := -1
	for _, segment := range c {
		last = max(last, segment)
	}
	return last
}

// in tells whether the records of a kind in a segment are in blocks.
func (c covered) in(kind string, segment int) bool {
	last, known := c[kind]
	return known && segment <= last
}

// kinds are the blocks for what a batch holds.
var kinds = map[journal.Kind]string{
	journal.Flows: "flows", journal.Lookups: "lookups", journal.Counts: "syscalls", journal.Anomalies: "anomalies",
	journal.GPU: "gpu",
}

func (d *disk) replay(segment int, b *journal.Batch, covered covered) {
	if kind := kinds[b.Kind]; kind != "" {
		if !d.recent.add(b.ID) && !covered.in(kind, segment) {
			// It was written twice, because the first time did not go well.
			return
		}
		if covered.in(kind, segment) {
			return
		}
	}
	if d.oldest.IsZero() {
		d.oldest = b.Arrived
	}
	d.store.apply(b)
}

// openBlocks opens all blocks, oldest first. One that cannot be read is set aside. Blocks whose rows are in another one too were
// merged when the process ended.
func (d *disk) openBlocks() (covered, error) {
	names, err := block.List(d.blocks)
	if err != nil {
		return nil, err
	}
	last := covered{}
	for _, s := range d.store.histories() {
		for _, name := range names {
			if name.Kind != s.kind() {
				continue
			}
			last[name.Kind] = max(last[name.Kind], name.To)
			file, err := block.Open(d.blocks, name)
			if err != nil {
				d.Logger.Error("A block cannot be read and is set aside: its records are lost", zap.Error(err))
				if err := block.SetAside(d.blocks, name); err != nil {
					return nil, err
				}
				continue
			}
			files := s.files()
			if n := len(*files); n > 0 && file.Name.Covers((*files)[n-1].Name) {
				// Names are in order: the whole comes after its first part.
				if err := (*files)[n-1].Remove(); err != nil {
					return nil, err
				}
				*files = (*files)[:n-1]
			} else if n > 0 && (*files)[n-1].Name.Covers(file.Name) {
				if err := file.Remove(); err != nil {
					return nil, err
				}
				continue
			}
			*files = append(*files, file)
			if name.Kind == "flows" {
				d.store.attach(d.blocks, file)
			}
		}
	}
	return last, nil
}

// write stores a batch, first in the journal.
func (d *disk) write(ctx context.Context, b *journal.Batch) (fresh bool, err error) {
	b.Identify()
	if err := d.room(ctx); err != nil {
		return false, err
	}
	buf, _ := d.buffers.Get().(*[]byte)
	if buf == nil {
		buf = new([]byte)
	}
	defer d.buffers.Put(buf)
	if *buf, err = b.Encode((*buf)[:0]); err != nil {
		return false, fmt.Errorf("cannot encode for the journal: %w", err)
	}
	fresh, appended, err := d.append(b, *buf)
	if err == nil && d.FsyncInterval == 0 {
		err = d.journal.Sync(appended)
	}
	d.state.set(journaling, err)
	return fresh, err
}

func (d *disk) append(b *journal.Batch, record []byte) (fresh bool, appended uint64, err error) {
	d.writing.Lock()
	defer d.writing.Unlock()
	identified := b.ID != journal.ID{}
	if identified && d.recent.has(b.ID) {
		return false, d.journal.Appended(), nil
	}
	if err := d.journal.Append(record); err != nil {
		return false, 0, err
	}
	if identified {
		d.recent.add(b.ID)
	}
	if d.oldest.IsZero() {
		d.oldest = b.Arrived
	}
	d.store.mu.Lock()
	d.store.apply(b)
	d.store.mu.Unlock()
	return true, d.journal.Appended(), nil
}

// head returns the memory that the records take which are in no block.
func (d *disk) head() uint64 {
	d.store.mu.RLock()
	defer d.store.mu.RUnlock()
	return d.store.memory()
}

// room waits until there is memory for more records. Where blocks cannot be written there will be none.
func (d *disk) room(ctx context.Context) error {
	for {
		size := d.head()
		if size >= d.HeadBytes {
			select {
			case d.wake <- struct{}{}:
			default:
			}
		}
		if size < overflow*d.HeadBytes {
			return nil
		}
		changed, err := d.state.get(sealing)
		if err != nil {
			return fmt.Errorf("the store takes no more records until it can write to its directory: %w", err)
		}
		if d.head() < overflow*d.HeadBytes {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Close writes nothing to blocks: the journal has it. A store in memory has nothing to close.
func (s *Store) Close() error {
	if s.disk == nil {
		return nil
	}
	s.disk.stop()
	s.disk.running.Wait()
	return s.disk.release()
}

// release gives back what open took, as far as it came.
func (d *disk) release() error {
	var err error
	if d.journal != nil {
		err = d.journal.Close()
	}
	for _, s := range d.store.histories() {
		for _, file := range *s.files() {
			file.Close()
		}
	}
	if d.lock != nil {
		err = errors.Join(err, d.lock.Close())
	}
	return err
}
