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
	// appended counts the records.
	appended atomic.Uint64

	mu sync.Mutex
	// file is the segment that is written, to be synced without holding up the log.
	file *os.File
	// before are the files of earlier segments that may not be on the disk yet, and named tells whether the segment's name is.
	before []*os.File
	named  bool

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
	defer j.mu.Unlock()
	if j.file != nil {
		j.before = append(j.before, j.file)
	}
	j.file, j.named = file, false
	return nil
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
	before, file, named := j.before, j.file, j.named
	j.before, j.named = nil, true
	j.mu.Unlock()
	err := file.Sync()
	for _, f := range before {
		err = errors.Join(err, f.Sync(), f.Close())
	}
	if !named {
		err = errors.Join(err, syncDirectory(j.dir))
	}
	if err != nil {
		return fmt.Errorf("cannot sync the journal: %w", err)
	}
	j.synced = reached
	return nil
}

// Cut begins a new segment and returns its number. It waits for no disk.
func (j *Journal) Cut() (int, error) {
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

// Truncate drops the segments before one.
func (j *Journal) Truncate(segment int) error {
	if err := j.log.Truncate(segment); err != nil {
		return fmt.Errorf("cannot drop segments of the journal: %w", err)
	}
	return syncDirectory(j.dir)
}

// Close syncs the journal and closes it.
func (j *Journal) Close() error {
	err := errors.Join(j.Sync(j.Appended()), j.log.Close(), j.file.Close())
	for _, f := range j.before { // with nothing in them that was not synced
		err = errors.Join(err, f.Close())
	}
	return err
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
