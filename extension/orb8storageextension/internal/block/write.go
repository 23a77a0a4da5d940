package block

import (
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress/zstd"
)

const (
	// GroupRows is how many rows a row group has at most: what is in memory while a block is written or read.
	GroupRows = 1 << 14
	// pageBytes and writeBytes are less than the library's own: a block has fifty columns, each with its buffers.
	pageBytes  = 32 << 10
	writeBytes = 64 << 10
	// bloomBits are those a value of a bloom filter: one question in a hundred finds what is not there.
	bloomBits = 10
)

// Write writes a block. Of its meta, the rows are counted here. The file has its name when all of it is on the disk, and not before.
func Write[T any](dir string, name Name, meta Meta, blooms []string, rows iter.Seq2[[]T, error]) (*File, error) {
	path := filepath.Join(dir, name.String())
	if err := write(path+temporary, meta, blooms, rows); err != nil {
		return nil, fmt.Errorf("cannot write the block %s: %w", path, errors.Join(err, removeUnfinished(path)))
	}
	if err := errors.Join(os.Rename(path+temporary, path), SyncDirectory(dir)); err != nil {
		return nil, fmt.Errorf("cannot write the block %s: %w", path, errors.Join(err, removeUnfinished(path)))
	}
	return Open(dir, name)
}

func removeUnfinished(path string) error {
	if err := os.Remove(path + temporary); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func write[T any](path string, meta Meta, blooms []string, all iter.Seq2[[]T, error]) (err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	var filters []parquet.BloomFilterColumn
	for _, column := range blooms {
		filters = append(filters, parquet.SplitBlockFilter(bloomBits, column))
	}
	w := parquet.NewGenericWriter[T](file,
		parquet.Compression(&zstd.Codec{Level: zstd.SpeedFastest, Concurrency: 1}), parquet.PageBufferSize(pageBytes),
		parquet.WriteBufferSize(writeBytes), parquet.MaxRowsPerRowGroup(GroupRows), parquet.BloomFilters(filters...),
		parquet.CreatedBy("orb8", "", ""))
	for rows, err := range all {
		if err != nil {
			return err
		}
		if _, err := w.Write(rows); err != nil {
			return err
		}
		meta.Rows += uint64(len(rows))
	}
	meta.Version = version
	text, err := json.Marshal(meta)
	if err != nil {
		return err
	}
	w.SetKeyValueMetadata(metaKey, string(text))
	if err := w.Close(); err != nil {
		return err
	}
	return file.Sync()
}

// SyncDirectory makes the names in a directory outlive the machine.
func SyncDirectory(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
