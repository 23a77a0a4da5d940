package embedded

import (
	"context"
	"errors"

	"go.uber.org/zap"

	"github.com/orb8/orb8/extension/orb8storageextension/internal/block"
	"github.com/orb8/orb8/internal/storage"
)

// blocksIn returns the blocks that may hold rows of [since, until), for a query that frees them at its end.
func (h *history[S]) blocksIn(since, until int64) []*block.File {
	var files []*block.File
	for _, f := range h.blocks {
		if f.Meta.End >= since && f.Meta.Start < until {
			f.Use()
			files = append(files, f)
		}
	}
	return files
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
