// Package journal is the write-ahead log of the embedded store: what was acknowledged and is in no block yet.
package journal

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"github.com/prometheus/prometheus/tsdb/wlog"
	"github.com/prometheus/prometheus/util/compression"
)

// segmentBytes is more than a head ever brings: segments are cut by Cut alone, so that one never holds records of two blocks.
const segmentBytes = 1 << 40

// Journal is a log of records in numbered segments. Append, Cut and Close are the writer's and must not run at once; Sync may
// run at any time.
type Journal struct {
	dir string
	log *wlog.WL
	// torn tells that the last Append failed, so that a part of a record may be at the segment's end: nothing may follow it.
	torn bool
	// bytes are those of all records since Open.
	bytes atomic.Int64
	// appended counts the records.
	appended atomic.Uint64

	mu sync.Mutex
	// segment is the number of the one that is written, and file the same file, to be synced without holding up the log.
	segment int
	file    *os.File

	syncing sync.Mutex
	// synced is how many records are known to be on the disk.
	synced uint64
}

// Open returns the journal of a directory, which is made if it is not there. It appends to a new segment: what a crash left at
// the end of the last one is never written behind.
func Open(dir string) (*Journal, error) {
	log, err := wlog.NewSize(nil, nil, dir, segmentBytes, compression.None)
	if err != nil {
		return nil, fmt.Errorf("cannot open the journal %s: %w", dir, err)
	}
	_, last, err := wlog.Segments(dir)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cannot list the journal %s: %w", dir, err), log.Close())
	}
	j := &Journal{dir: dir, log: log}
	if err := j.begin(last); err != nil {
		return nil, errors.Join(err, log.Close())
	}
	return j, nil
}

// begin notes that a segment is the one that is written.
func (j *Journal) begin(segment int) error {
	file, err := os.Open(wlog.SegmentName(j.dir, segment))
	if err != nil {
		return fmt.Errorf("cannot open a segment of the journal: %w", err)
	}
	j.mu.Lock()
	before := j.file
	j.segment, j.file = segment, file
	j.mu.Unlock()
	if before != nil {
		err = before.Close()
	}
	return errors.Join(err, syncDirectory(j.dir))
}

// Append adds a record. When it returns, the record is the kernel's: it outlives the process, and the machine after Sync.
func (j *Journal) Append(record []byte) error {
	if j.torn {
		if _, err := j.Cut(); err != nil {
			return err
		}
	}
	if err := j.log.Log(record); err != nil {
		j.torn = true
		return fmt.Errorf("cannot write to the journal: %w", err)
	}
	j.bytes.Add(int64(len(record)))
	j.appended.Add(1)
	return nil
}

// Appended returns how many records were added: what to hand to Sync.
func (j *Journal) Appended() uint64 { return j.appended.Load() }

// Sync waits until the first n records are on the disk. Callers that wait at the same time share the disk's work.
func (j *Journal) Sync(n uint64) error {
	j.syncing.Lock()
	defer j.syncing.Unlock()
	if j.synced >= n {
		return nil
	}
	reached := j.appended.Load()
	j.mu.Lock()
	file := j.file
	j.mu.Unlock()
	// A file that was closed meanwhile was synced by Cut.
	if err := file.Sync(); err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("cannot sync the journal: %w", err)
	}
	j.synced = reached
	return nil
}

// Cut begins a new segment and returns its number. All segments before it are on the disk.
func (j *Journal) Cut() (int, error) {
	if err := j.Sync(j.Appended()); err != nil {
		return 0, err
	}
	next, err := j.log.NextSegment()
	if err != nil {
		return 0, fmt.Errorf("cannot begin a segment of the journal: %w", err)
	}
	if err := j.begin(next); err != nil {
		return 0, err
	}
	j.torn = false
	return next, nil
}

// Segment returns the number of the segment that is written.
func (j *Journal) Segment() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.segment
}

// Truncate drops the segments before one.
func (j *Journal) Truncate(segment int) error {
	if err := j.log.Truncate(segment); err != nil {
		return fmt.Errorf("cannot drop segments of the journal: %w", err)
	}
	return syncDirectory(j.dir)
}

// Size returns the bytes of all segments.
func (j *Journal) Size() (int64, error) { return j.log.Size() }

// Close syncs the journal and closes it.
func (j *Journal) Close() error {
	return errors.Join(j.Sync(j.Appended()), j.log.Close(), j.file.Close())
}

// Damage says from where on a segment cannot be read.
type Damage struct {
	Segment int
	Offset  int64
	Err     error
}

func (d Damage) Error() string {
	return fmt.Sprintf("journal segment %d is damaged at byte %d: %v", d.Segment, d.Offset, d.Err)
}

// Begin makes a journal whose segments begin after one, unless there is a journal already. Blocks are named after segments: their
// numbers must not come again when the journal was lost.
func Begin(dir string, after int) error {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	if _, last, err := wlog.Segments(dir); err != nil || last >= 0 || after < 0 {
		return err
	}
	return os.WriteFile(wlog.SegmentName(dir, after), nil, 0o640)
}

// Replay hands all records to a function, oldest first; a record is only valid until the function returns, and its error ends the
// replay. What is behind damage in a segment is left out, and the damage returned: the end of a
// segment that a crash tore was acknowledged to nobody.
func Replay(dir string, use func(segment int, record []byte) error) ([]Damage, error) {
	first, last, err := wlog.Segments(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot list the journal %s: %w", dir, err)
	}
	var damages []Damage
	for segment := max(first, 0); segment <= last; segment++ {
		damage, err := replaySegment(dir, segment, use)
		if err != nil {
			return damages, err
		}
		if damage != nil {
			damages = append(damages, *damage)
		}
	}
	return damages, nil
}

func replaySegment(dir string, segment int, use func(int, []byte) error) (*Damage, error) {
	file, err := os.Open(wlog.SegmentName(dir, segment))
	if err != nil {
		return nil, fmt.Errorf("cannot open a segment of the journal: %w", err)
	}
	defer file.Close()
	r := wlog.NewReader(bufio.NewReader(file))
	for r.Next() {
		if err := use(segment, r.Record()); err != nil {
			return nil, fmt.Errorf("cannot use a record of journal segment %d: %w", segment, err)
		}
	}
	if err := r.Err(); err != nil {
		return &Damage{Segment: segment, Offset: r.Offset(), Err: err}, nil
	}
	return nil, nil
}

// syncDirectory makes the names in a directory outlive the machine.
func syncDirectory(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
