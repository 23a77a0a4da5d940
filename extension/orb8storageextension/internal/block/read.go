package block

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/parquet-go/parquet-go"
)

// Rows hands all rows to a function, some at a time; they are only valid until it returns, and its error ends the reading.
func Rows[T any](f *File, use func([]T) error) error {
	for _, group := range f.parquet.RowGroups() {
		if err := groupRows(f, group, use); err != nil {
			return err
		}
	}
	return nil
}

func groupRows[T any](f *File, group parquet.RowGroup, use func([]T) error) (err error) {
	var r *parquet.GenericReader[T]
	if err := f.reading(func() error {
		r = parquet.NewGenericRowGroupReader[T](group)
		return nil
	}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.reading(r.Close)) }()
	rows := make([]T, min(group.NumRows(), 1024))
	for left := group.NumRows(); left > 0; {
		var n int
		if err := f.reading(func() (err error) {
			clear(rows) // a list of the row before must not be written over: it was handed on
			if n, err = r.Read(rows); errors.Is(err, io.EOF) && n > 0 {
				return nil
			}
			return err
		}); err != nil {
			return err
		}
		left -= int64(n)
		if err := use(rows[:n]); err != nil {
			return err
		}
	}
	return nil
}

func (f *File) reading(do func() error) error {
	if err := guard(do); err != nil {
		return &DamageError{File: f, Err: err}
	}
	return nil
}

// DamageError says that a block cannot be read.
type DamageError struct {
	File *File
	Err  error
}

func (e *DamageError) Error() string {
	return fmt.Sprintf("cannot read the block %s: %v", e.File.path, e.Err)
}

func (e *DamageError) Unwrap() error { return e.Err }

// Group is a row group of a file, read by column.
type Group struct {
	file    *File
	columns map[string]int
	group   parquet.RowGroup
	err     error
}

// Groups returns the row groups. The name of a column in a struct has the struct's and a dot before it.
func (f *File) Groups() []*Group {
	columns := map[string]int{}
	for i, path := range f.parquet.Schema().Columns() {
		columns[strings.Join(path, ".")] = i
	}
	var groups []*Group
	for _, group := range f.parquet.RowGroups() {
		groups = append(groups, &Group{file: f, columns: columns, group: group})
	}
	return groups
}

// Len returns how many rows the group has.
func (g *Group) Len() int { return int(g.group.NumRows()) }

// Has tells whether there is a column: files of before it have not.
func (g *Group) Has(column string) bool {
	_, there := g.columns[column]
	return there
}

// Err returns what went wrong with the columns that were read; those have no rows.
func (g *Group) Err() error { return g.err }

// Fail notes that what a column holds cannot be: the whole group cannot be used then.
func (g *Group) Fail(err error) {
	if g.err == nil {
		g.err = &DamageError{File: g.file, Err: err}
	}
}

// read lets do read a column. Nothing is read any more once something went wrong.
func (g *Group) read(column string, do func(parquet.ColumnChunk) error) {
	if g.err != nil {
		return
	}
	g.err = g.file.reading(func() error {
		at, ok := g.columns[column]
		if !ok {
			return fmt.Errorf("there is no column %s", column)
		}
		if err := do(g.group.ColumnChunks()[at]); err != nil {
			return fmt.Errorf("column %s: %w", column, err)
		}
		return nil
	})
}

// pages hands the pages of a column to a function.
func pages(c parquet.ColumnChunk, use func(parquet.Page) error) error {
	pages := c.Pages()
	for {
		page, err := pages.ReadPage()
		if errors.Is(err, io.EOF) {
			return pages.Close()
		}
		if err == nil {
			err = use(page)
			parquet.Release(page)
		}
		if err != nil {
			return errors.Join(err, pages.Close())
		}
	}
}

// Number is what columns of numbers hold.
type Number interface {
	int64 | uint64 | uint32 | float64
}

// Numbers reads a column of numbers.
func Numbers[N Number](g *Group, column string) []N {
	return values(g, column, func(page parquet.Page, rows []N) ([]N, error) {
		data := page.Data()
		switch into := any(&rows).(type) {
		case *[]int64:
			*into = append(*into, data.Int64()...)
		case *[]uint64:
			*into = append(*into, data.Uint64()...)
		case *[]uint32:
			*into = append(*into, data.Uint32()...)
		case *[]float64:
			*into = append(*into, data.Double()...)
		}
		return rows, nil
	})
}

// Flags reads a column of booleans.
func (g *Group) Flags(column string) []bool {
	return values(g, column, func(page parquet.Page, rows []bool) ([]bool, error) {
		data := page.Data()
		bits := data.Boolean()
		for i := range int(page.NumValues()) {
			rows = append(rows, bits[i/8]&(1<<(i%8)) != 0)
		}
		return rows, nil
	})
}

// Words reads a column of strings as what they are in: a dictionary, and the index of each row's string in it.
func (g *Group) Words(column string) (dictionary []string, rows []uint32) {
	rows = values(g, column, func(page parquet.Page, rows []uint32) ([]uint32, error) {
		d := page.Dictionary()
		if d == nil {
			return nil, errors.New("it has no dictionary")
		}
		if dictionary == nil {
			dictionary = make([]string, d.Len())
			for i := range dictionary {
				dictionary[i] = string(d.Index(int32(i)).ByteArray())
			}
		}
		data := page.Data()
		for _, at := range data.Int32() {
			if int(at) >= len(dictionary) || at < 0 {
				return nil, fmt.Errorf("word %d of %d", at, len(dictionary))
			}
			rows = append(rows, uint32(at))
		}
		return rows, nil
	})
	if g.err != nil {
		dictionary = nil
	}
	return dictionary, rows
}

// values reads a column without nulls, page by page. Once something went wrong, it returns zero values: a reader that looks at
// Err at the end need not look after each column.
func values[T any](g *Group, column string, read func(parquet.Page, []T) ([]T, error)) []T {
	rows := make([]T, 0, g.Len())
	g.read(column, func(c parquet.ColumnChunk) error {
		err := pages(c, func(page parquet.Page) (err error) {
			rows, err = read(page, rows)
			return err
		})
		if err == nil && len(rows) != g.Len() {
			err = fmt.Errorf("it has %d rows and the group %d", len(rows), g.Len())
		}
		return err
	})
	if g.err != nil {
		return make([]T, g.Len())
	}
	return rows
}
