package embedded

import (
	"errors"
	"fmt"
	"iter"
	"os"
	"runtime"
	"slices"

	"go.uber.org/zap"

	"github.com/orb8/orb8/extension/orb8storageextension/internal/block"
	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/syscalls"
)

// Records on their way to a block take a processor for seconds. Others, who would wait for up to 10 ms until the runtime makes room for
// them, again and again, are let in after every few records.
func (s *Store) writeFlows(dir string, name block.Name, meta block.Meta, segments []*chunk) (*block.File, error) {
	views := make([]view, len(segments))
	for i, c := range segments {
		views[i] = c.view()
	}
	return s.withIndex(dir, name, func(path string) error { return indexViews(path, views, runtime.Gosched) }, func() (*block.File, error) {
		return block.Write(dir, name, meta, block.FlowBlooms, flowRows(views, runtime.Gosched))
	})
}

// withIndex writes the index of a block, and then the block: one that is there has its index, unless the disk has lost it.
func (s *Store) withIndex(dir string, name block.Name, index func(path string) error, write func() (*block.File, error)) (*block.File, error) {
	path := block.CompanionPath(dir, name)
	if err := index(path); err != nil {
		return nil, fmt.Errorf("cannot write the block %s: its index: %w", name, err)
	}
	file, err := write()
	if err != nil {
		return nil, errors.Join(err, os.Remove(path))
	}
	s.attach(dir, file)
	return file, nil
}

// attach opens the index of a block. One that cannot be read is made again by and by: until then the block itself is read.
func (s *Store) attach(dir string, file *block.File) bool {
	x, err := openIndex(block.CompanionPath(dir, file.Name), file.Meta.Rows, &s.lexicon)
	if err != nil {
		s.disk.Logger.Info("A block has no index that can be read, and will have one", zap.String("block", file.Name.String()), zap.Error(err))
		return false
	}
	file.Attach(x)
	return true
}

// indexOf returns the index of a block, or nil where there is none that can be read.
func indexOf(f *block.File) *index {
	x, ok := f.Companion().(*index)
	if !ok || x.broken.Load() {
		return nil
	}
	return x
}

func (s *Store) mergeFlows(dir string, name block.Name, meta block.Meta, files []*block.File) (*block.File, error) {
	var indexes []*index
	for _, f := range files {
		x := indexOf(f)
		if x == nil {
			return mergeFlows(dir, name, meta, files, s.giveWay)
		}
		indexes = append(indexes, x)
	}
	return s.withIndex(dir, name, func(path string) error { return mergeIndexes(path, indexes, s.giveWay) }, func() (*block.File, error) {
		return mergeFlows(dir, name, meta, files, s.giveWay)
	})
}

// mergeFlows puts small row groups together and leaves the order of large ones alone: it never holds more rows than a few groups.
func mergeFlows(dir string, name block.Name, meta block.Meta, files []*block.File, pause func()) (*block.File, error) {
	return block.Write(dir, name, meta, block.FlowBlooms, func(yield func([]block.FlowRow, error) bool) {
		var views []view
		var held int
		flush := func() bool {
			for rows := range flowRows(views, pause) {
				if !yield(rows, nil) {
					return false
				}
			}
			views, held = nil, 0
			return true
		}
		for _, f := range files {
			for _, g := range f.Groups() {
				v, err := readFlows(g)
				if err != nil {
					yield(nil, err)
					return
				}
				views, held = append(views, v), held+len(v.rows)
				if held >= block.GroupRows && !flush() {
					return
				}
			}
		}
		flush()
	})
}

func writeLookups(dir string, name block.Name, meta block.Meta, segments []*lookupChunk) (*block.File, error) {
	return block.Write(dir, name, meta, block.LookupBlooms, converted(segments, func(c *lookupChunk) int { return len(c.rows) },
		func(c *lookupChunk, i int) block.LookupRow {
			l := c.view().lookup(uint32(i))
			return block.LookupRowOf(&l)
		}))
}

func mergeLookups(dir string, name block.Name, meta block.Meta, files []*block.File) (*block.File, error) {
	return block.Write(dir, name, meta, block.LookupBlooms, copied[block.LookupRow](files))
}

func writeCounts(dir string, name block.Name, meta block.Meta, segments []*countsChunk) (*block.File, error) {
	return block.Write(dir, name, meta, nil, converted(segments, func(c *countsChunk) int { return len(c.rows) },
		func(c *countsChunk, i int) block.CountsRow {
			n := c.view().counts(i)
			return block.CountsRowOf(&n)
		}))
}

func mergeCounts(dir string, name block.Name, meta block.Meta, files []*block.File) (*block.File, error) {
	return block.Write(dir, name, meta, nil, copied[block.CountsRow](files))
}

func writeAnomalies(dir string, name block.Name, meta block.Meta, segments []*anomalyChunk) (*block.File, error) {
	return block.Write(dir, name, meta, nil, converted(segments, func(c *anomalyChunk) int { return len(c.rows) },
		func(c *anomalyChunk, i int) block.AnomalyRow {
			n := c.view().anomaly(uint32(i))
			return block.AnomalyRowOf(&n)
		}))
}

func mergeAnomalies(dir string, name block.Name, meta block.Meta, files []*block.File) (*block.File, error) {
	return block.Write(dir, name, meta, nil, copied[block.AnomalyRow](files))
}

func writeGPU(dir string, name block.Name, meta block.Meta, segments []*gpuChunk) (*block.File, error) {
	return block.Write(dir, name, meta, nil, converted(segments, func(c *gpuChunk) int { return len(c.times) },
		func(c *gpuChunk, i int) block.GPURow {
			n := c.view().sample(i)
			return block.GPURowOf(&n)
		}))
}

func mergeGPU(dir string, name block.Name, meta block.Meta, files []*block.File) (*block.File, error) {
	return block.Write(dir, name, meta, nil, copied[block.GPURow](files))
}

// converted yields the rows of segments as those of a block.
func converted[S, R any](segments []S, count func(S) int, row func(S, int) R) iter.Seq2[[]R, error] {
	return func(yield func([]R, error) bool) {
		rows := make([]R, 0, batchRows)
		for _, segment := range segments {
			for i := range count(segment) {
				if rows = append(rows, row(segment, i)); len(rows) == batchRows {
					if !yield(rows, nil) {
						return
					}
					rows = rows[:0]
				}
			}
		}
		if len(rows) > 0 {
			yield(rows, nil)
		}
	}
}

// errEnough ends the reading of a block whose rows nobody wants any more.
var errEnough = errors.New("enough")

// copied yields the rows of blocks.
func copied[R any](files []*block.File) iter.Seq2[[]R, error] {
	return func(yield func([]R, error) bool) {
		for _, f := range files {
			err := block.Rows(f, func(rows []R) error {
				if !yield(rows, nil) {
					return errEnough
				}
				return nil
			})
			if errors.Is(err, errEnough) {
				return
			}
			if err != nil {
				yield(nil, err)
				return
			}
		}
	}
}

// readSegments reads a block into segments as they were in memory, some at a time. Rows for which in is false are left out.
func readSegments[S segment, R, M any](
	f *block.File, fresh func() S, model func(*R) (M, error), in func(*M) bool, add func(S, *M, int64), use func(S) error,
) error {
	segment := fresh()
	err := block.Rows(f, func(rows []R) error {
		for i := range rows {
			m, err := model(&rows[i])
			if err != nil {
				return &block.DamageError{File: f, Err: err}
			}
			if !in(&m) {
				continue
			}
			add(segment, &m, f.Meta.Written)
			if segment.full() {
				if err := use(segment); err != nil {
					return err
				}
				segment = fresh()
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if segment.common().count == 0 {
		return nil
	}
	return use(segment)
}

func readLookups(f *block.File, since, until int64, use func(*lookupChunk) error) error {
	return readSegments(f, newLookupChunk, (*block.LookupRow).Lookup, func(l *flow.Lookup) bool {
		at := l.Time.UnixNano()
		return at >= since && at < until
	}, (*lookupChunk).append, use)
}

func readCounts(f *block.File, since, until int64, use func(*countsChunk) error) error {
	return readSegments(f, newCountsChunk, (*block.CountsRow).Counts, func(n *syscalls.Counts) bool {
		return n.End.UnixNano() > since && n.Start.UnixNano() < until
	}, (*countsChunk).append, use)
}

func readAnomalies(f *block.File, since, until int64, use func(*anomalyChunk) error) error {
	return readSegments(f, newAnomalyChunk, (*block.AnomalyRow).Anomaly, func(n *syscalls.Anomaly) bool {
		at := n.Time.UnixNano()
		return at >= since && at < until
	}, (*anomalyChunk).append, use)
}

// readGPU reads a row group into a view; of one without samples of the range it reads nothing but when they were. Groups are in order
// of arrival: a question about the last minutes is mostly about the last group.
func readGPU(g *block.Group, since, until int64) (*gpuView, error) {
	v := &gpuView{times: block.Numbers[int64](g, "time")}
	if g.Err() == nil && !slices.ContainsFunc(v.times, func(at int64) bool { return at >= since && at < until }) {
		return &gpuView{}, nil
	}
	r := columnReader{Group: g, chunk: newChunk()}
	rows := make([]gpuSeries, g.Len())
	for column, field := range map[string]func(*gpuSeries) *uint32{
		"node": func(s *gpuSeries) *uint32 { return &s.node }, "device": func(s *gpuSeries) *uint32 { return &s.device },
		"parent": func(s *gpuSeries) *uint32 { return &s.parent }, "model": func(s *gpuSeries) *uint32 { return &s.model },
		"pci_address": func(s *gpuSeries) *uint32 { return &s.pciAddress }, "mig_profile": func(s *gpuSeries) *uint32 { return &s.migProfile },
		"metric": func(s *gpuSeries) *uint32 { return &s.metric }, "unit": func(s *gpuSeries) *uint32 { return &s.unit },
		"attributes": func(s *gpuSeries) *uint32 { return &s.attributes },
	} {
		each(r.words(column), func(i int, word uint32) { *field(&rows[i]) = word })
	}
	each(block.Numbers[int64](g, "start"), func(i int, n int64) { rows[i].start = n })
	each(block.Numbers[uint32](g, "index"), func(i int, n uint32) { rows[i].index = n })
	each(g.Flags("counter"), func(i int, counter bool) { rows[i].counter = counter })
	r.identities("container.", func(i int, id uint32) { rows[i].identity = id })
	v.values, v.of = block.Numbers[float64](g, "value"), make([]uint32, len(rows))
	if err := g.Err(); err != nil {
		return nil, err
	}
	index := map[gpuSeries]uint32{}
	for i := range rows {
		id, known := index[rows[i]]
		if !known {
			id = uint32(len(v.series))
			v.series = append(v.series, rows[i])
			index[rows[i]] = id
		}
		v.of[i] = id
	}
	v.words = r.chunk.words
	return v, nil
}
