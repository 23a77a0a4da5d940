// Package block is what the embedded store keeps on disk: Parquet files that are written once, and are whole or not there.
package block

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/parquet-go/parquet-go"
)

const (
	// metaKey is that of the Meta among the metadata of a file.
	metaKey = "orb8.block"
	// version is that of the columns. A file of a later one is not opened.
	version = 1
	// temporary ends the name of a file that is being written.
	temporary = ".tmp"
	// damaged ends the name of a file that could not be read.
	damaged = ".damaged"
	suffix  = ".parquet"
	// companion ends the name of a file that is derived of a block.
	companion = ".index"
)

// Meta is what a query needs to know of a block before it reads it.
type Meta struct {
	Version int    `json:"version"`
	Rows    uint64 `json:"rows"`
	// Start is the first and End the last instant of all rows, Written when the last of them arrived: nanoseconds since the epoch.
	Start   int64 `json:"start"`
	End     int64 `json:"end"`
	Written int64 `json:"written"`
}

// Name says what a block holds: a kind of records, of the journal's segments From to To.
type Name struct {
	Kind     string
	From, To int
}

// String returns the name of the file: kind-from-to.parquet.
func (n Name) String() string { return fmt.Sprintf("%s-%08d-%08d%s", n.Kind, n.From, n.To, suffix) }

// ParseName is the inverse of String.
func ParseName(s string) (Name, bool) {
	var n Name
	parts := strings.Split(strings.TrimSuffix(s, suffix), "-")
	if len(parts) != 3 || !strings.HasSuffix(s, suffix) {
		return n, false
	}
	n.Kind = parts[0]
	if _, err := fmt.Sscanf(parts[1]+" "+parts[2], "%d %d", &n.From, &n.To); err != nil {
		return n, false
	}
	return n, n.String() == s && n.From <= n.To
}

// Covers tells whether all that another block holds is in this one too.
func (n Name) Covers(o Name) bool { return n.Kind == o.Kind && n.From <= o.From && o.To <= n.To }

// Companion is what is derived of a block, in a file beside it. It is closed with the block.
type Companion interface {
	// Size is in bytes.
	Size() uint64
	Close() error
}

// CompanionPath is that of a block's companion.
func CompanionPath(dir string, name Name) string {
	return filepath.Join(dir, name.String()) + companion
}

// File is a block that can be read. It may be removed while it is read: its readers go on.
type File struct {
	Name Name
	Meta Meta
	// Size is in bytes.
	Size uint64

	path    string
	file    *os.File
	parquet *parquet.File
	// users are the readers, and the store until Remove or Close.
	users atomic.Int32

	mu sync.Mutex
	// companions are those that were attached. The last one counts; there may be readers of the others.
	companions []Companion
}

// Open opens a block of a directory.
func Open(dir string, name Name) (f *File, err error) {
	path := filepath.Join(dir, name.String())
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("cannot open a block: %w", err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("cannot read the block %s: %w", path, errors.Join(err, file.Close()))
		}
	}()
	stat, err := file.Stat()
	if err != nil {
		return nil, err
	}
	f = &File{Name: name, Size: uint64(stat.Size()), path: path, file: file}
	if err := guard(func() error { return f.parse() }); err != nil {
		return nil, err
	}
	f.users.Store(1)
	return f, nil
}

func (f *File) parse() error {
	file, err := parquet.OpenFile(f.file, int64(f.Size), parquet.SkipPageIndex(true), parquet.SkipBloomFilters(true))
	if err != nil {
		return err
	}
	text, ok := file.Lookup(metaKey)
	if !ok {
		return fmt.Errorf("it has no %s among its metadata: orb8 did not write it", metaKey)
	}
	if err := json.Unmarshal([]byte(text), &f.Meta); err != nil {
		return fmt.Errorf("%s: %w", metaKey, err)
	}
	if f.Meta.Version != version {
		return fmt.Errorf("it has version %d and this orb8 knows %d: use the orb8 that wrote it, or a later one", f.Meta.Version, version)
	}
	if rows := uint64(file.NumRows()); rows != f.Meta.Rows {
		return fmt.Errorf("it has %d rows and should have %d", rows, f.Meta.Rows)
	}
	for _, group := range file.RowGroups() {
		if n := group.NumRows(); n < 0 || n > GroupRows {
			return fmt.Errorf("it has a row group of %d rows, and orb8 writes at most %d", n, GroupRows)
		}
	}
	f.parquet = file
	return nil
}

// guard makes an error of a panic: the Parquet library has some for files that are damaged.
func guard(do func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("damaged: %v", r)
		}
	}()
	return do()
}

// Attach gives the file its companion, or another one in its place.
func (f *File) Attach(c Companion) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.companions = append(f.companions, c)
}

// Companion returns what was attached last, or nil.
func (f *File) Companion() Companion {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.companions) == 0 {
		return nil
	}
	return f.companions[len(f.companions)-1]
}

// Stored is what the file and its companion take, in bytes.
func (f *File) Stored() uint64 {
	if c := f.Companion(); c != nil {
		return f.Size + c.Size()
	}
	return f.Size
}

// Use keeps the file open until Done.
func (f *File) Use() { f.users.Add(1) }

// Done ends a Use.
func (f *File) Done() {
	if f.users.Add(-1) == 0 {
		// It was only read: there is nothing that an error could mean.
		_ = f.file.Close()
		for _, c := range f.companions {
			_ = c.Close()
		}
	}
}

// Close closes the file when its last reader is done.
func (f *File) Close() { f.Done() }

// Remove removes the file, and then its companion. Its readers go on.
func (f *File) Remove() error {
	defer f.Done()
	for _, path := range []string{f.path, f.path + companion} {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("cannot remove a block: %w", err)
		}
	}
	return nil
}

// SetAside renames a file that cannot be read, so that it is never opened again and can be looked at.
func SetAside(dir string, name Name) error {
	path := filepath.Join(dir, name.String())
	if err := os.Rename(path, path+damaged); err != nil {
		return fmt.Errorf("cannot set a damaged block aside: %w", err)
	}
	if err := os.Remove(path + companion); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("cannot remove what belongs to a damaged block: %w", err)
	}
	return nil
}

// List returns the names of the blocks of a directory, after it has removed the files that a crash left unfinished, or without their
// block.
func List(dir string) ([]Name, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot list the blocks: %w", err)
	}
	var names []Name
	for _, entry := range entries {
		whole, derived := strings.CutSuffix(entry.Name(), companion)
		alone := derived && !slices.ContainsFunc(entries, func(e os.DirEntry) bool { return e.Name() == whole })
		if alone || strings.HasSuffix(entry.Name(), temporary) {
			if err := os.Remove(filepath.Join(dir, entry.Name())); err != nil {
				return nil, fmt.Errorf("cannot remove what was not finished: %w", err)
			}
			continue
		}
		if name, ok := ParseName(entry.Name()); ok {
			names = append(names, name)
		}
	}
	return names, nil
}
