package embedded

import (
	"context"
	"errors"
	"slices"

	"go.uber.org/zap"

	"github.com/orb8/orb8/extension/orb8storageextension/internal/block"
	"github.com/orb8/orb8/internal/storage"
)

// blocksIn returns the blocks that may hold rows of [since, until), oldest first, for a query that frees them at its end. Of more
// than so many records, unless that is 0, it leaves out the oldest, and returns from when on none are left out.
func (h *history[S]) blocksIn(since, until int64, maxRecords uint64) (files []*block.File, from int64) {
	var records uint64
	for _, f := range slices.Backward(h.blocks) {
		if f.Meta.End < since || f.Meta.Start >= until {
			continue
		}
		if records += f.Meta.Rows; maxRecords > 0 && records > maxRecords && len(files) > 0 {
			// A node whose clock is ahead must not move the edge beyond what has arrived.
			from = max(from, min(f.Meta.End, f.Meta.Written))
			continue
		}
		f.Use()
		files = append(files, f)
	}
	slices.Reverse(files)
	return files, from
}

func free(files []*block.File) {
	for _, f := range files {
		f.Done()
	}
}

// readBlocks lets read read each of the blocks of a kind. One that cannot be read is set aside, and what it held is a loss: an
// answer is what there is.
func (s *Store) readBlocks(ctx context.Context, kind string, files []*block.File, read func(*block.File) error) (lost storage.Loss, err error) {
	for _, f := range files {
		if err := ctx.Err(); err != nil {
			return lost, err
		}
		err := read(f)
		var damage *block.DamageError
		if !errors.As(err, &damage) {
			if err != nil {
				return lost, err
			}
			continue
		}
		lost.EvictedRecords += f.Meta.Rows
		s.disk.Logger.Error("A block cannot be read and is set aside: its records are lost", zap.Error(err))
		if err := s.disk.setAside(s.shelf(kind), f); err != nil {
			return lost, err
		}
	}
	return lost, nil
}

func (s *Store) shelf(kind string) shelf {
	for _, shelf := range s.histories() {
		if shelf.kind() == kind {
			return shelf
		}
	}
	return nil
}

// checked makes a use of segments end with its context.
func checked[S any](ctx context.Context, use func(S)) func(S) error {
	return func(segment S) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		use(segment)
		return nil
	}
}
