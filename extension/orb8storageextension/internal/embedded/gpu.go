package embedded

import (
	"context"
	"slices"
	"time"
	"unsafe"

	"github.com/orb8/orb8/extension/orb8storageextension/internal/block"
	"github.com/orb8/orb8/extension/orb8storageextension/internal/journal"
	"github.com/orb8/orb8/internal/gpu"
	"github.com/orb8/orb8/internal/storage"
)

const (
	// gpuChunkRows and gpuChunkBytes bound a chunk, whichever comes first: of 8 GPUs it is about ten scrapes.
	gpuChunkRows  = 4096
	gpuChunkBytes = 128 << 10
	// gpuShare is the part of the store's memory that samples of GPUs may take: one in so many.
	gpuShare = 8
)

// gpuSeries is what samples have in common, in words. start is that of a counter, 0 where it is not known.
type gpuSeries struct {
	start                        int64
	node, identity               uint32
	device, parent, index, model uint32
	pciAddress, migProfile       uint32
	metric, unit, attributes     uint32
	counter                      bool
}

const (
	gpuSeriesBytes = uint64(unsafe.Sizeof(gpuSeries{}))
	// gpuSampleBytes are a time, a value and the number of a series.
	gpuSampleBytes = 8 + 8 + 4
)

// gpuView is to a gpuChunk what view is to a chunk.
type gpuView struct {
	words
	series []gpuSeries
	times  []int64
	values []float64
	of     []uint32
}

// gpuChunk is a run of samples. A scrape brings a value of each series: a sample is its time, its value and the number of its series.
type gpuChunk struct {
	run
	series      []gpuSeries
	seriesIndex map[gpuSeries]uint32
	times       []int64
	values      []float64
	// of are the series of the samples.
	of []uint32
}

func newGPUChunk() *gpuChunk {
	return &gpuChunk{run: newRun(), seriesIndex: map[gpuSeries]uint32{}}
}

func (c *gpuChunk) full() bool {
	return len(c.times) >= gpuChunkRows || c.size() >= gpuChunkBytes
}

func (c *gpuChunk) size() uint64 {
	return c.bytes + uint64(len(c.series))*gpuSeriesBytes + uint64(len(c.times))*gpuSampleBytes
}

func (c *gpuChunk) seal() {
	c.dictionary.seal()
	c.seriesIndex = nil
	c.series, c.times, c.values, c.of = slices.Clone(c.series), slices.Clone(c.times), slices.Clone(c.values), slices.Clone(c.of)
}

func (c *gpuChunk) view() *gpuView {
	return &gpuView{words: c.words, series: c.series, times: c.times, values: c.values, of: c.of}
}

func (c *gpuChunk) append(n *gpu.Sample, now int64) {
	at := n.Time.UnixNano()
	c.note(at, at, now)
	d := &n.Device
	series := gpuSeries{
		node: c.stringID(n.Node), identity: c.identityID(n.Identity),
		device: c.stringID(d.ID), parent: c.stringID(d.Parent), index: d.Index, model: c.stringID(d.Model),
		pciAddress: c.stringID(d.PCIAddress), migProfile: c.stringID(d.MIGProfile),
		metric: c.stringID(n.Metric), unit: c.stringID(n.Unit), attributes: c.stringID(n.Attributes), counter: n.Counter,
	}
	if !n.Start.IsZero() {
		series.start = n.Start.UnixNano()
	}
	id, known := c.seriesIndex[series]
	if !known {
		id = uint32(len(c.series))
		c.series = append(c.series, series)
		c.seriesIndex[series] = id
	}
	c.times, c.values, c.of = append(c.times, at), append(c.values, n.Value), append(c.of, id)
}

// decode returns a series as the model has it, but for its identity.
func (v *gpuView) decode(s *gpuSeries) gpu.Series {
	return gpu.Series{
		Node: v.strings[s.node],
		Device: gpu.Device{
			ID: v.strings[s.device], Parent: v.strings[s.parent], Index: s.index, Model: v.strings[s.model],
			PCIAddress: v.strings[s.pciAddress], MIGProfile: v.strings[s.migProfile],
		},
		Metric: v.strings[s.metric], Unit: v.strings[s.unit], Attributes: v.strings[s.attributes], Counter: s.counter,
	}
}

// sample decodes a row.
func (v *gpuView) sample(i int) gpu.Sample {
	series := &v.series[v.of[i]]
	n := gpu.Sample{Series: v.decode(series), Time: time.Unix(0, v.times[i]).UTC(), Value: v.values[i]}
	n.Identity = v.identities[series.identity]
	if series.start != 0 {
		n.Start = time.Unix(0, series.start).UTC()
	}
	return n
}

// addTo adds the samples of a range.
func (v *gpuView) addTo(lines *storage.Timelines, since, until int64) {
	type line struct {
		*storage.Line
		refused bool
	}
	all := make([]line, len(v.series))
	for i, of := range v.of {
		at, to := v.times[i], &all[of]
		if to.refused || at < since || at >= until || !lines.Covers(at, v.series[of].counter) {
			continue
		}
		if to.Line == nil {
			series := v.decode(&v.series[of])
			if to.refused = !lines.Wants(&series); to.refused {
				continue
			}
			series.Identity = v.identities[v.series[of].identity]
			to.Line = lines.Line(series)
		}
		to.Add(at, v.series[of].start, v.values[i])
	}
}

// WriteGPU is WriteFlows of samples of GPUs.
func (s *Store) WriteGPU(ctx context.Context, samples []gpu.Sample) (fresh bool, err error) {
	return s.write(ctx, &journal.Batch{Kind: journal.GPU, GPU: samples})
}

// QueryGPU answers a query; see storage.Reader.
func (s *Store) QueryGPU(ctx context.Context, query storage.GPUQuery) (storage.GPUResult, error) {
	done, err := s.turn(ctx)
	if err != nil {
		return storage.GPUResult{}, err
	}
	defer done()
	now := s.settings.Now()
	since, until := s.bounds(now, query.From(), query.Until)
	coverage, files, views := note(s, &s.gpu, now, since, until, s.settings.MaxQueryRecords, (*node).anyReports, (*gpuChunk).view)
	defer free(files)
	lines := storage.NewTimelines(&query)
	lost, err := s.readBlocks(ctx, "gpu", files, func(f *block.File) error {
		for _, g := range f.Groups() {
			if err := ctx.Err(); err != nil {
				return err
			}
			v, err := readGPU(g, since, until)
			if err != nil {
				return err
			}
			v.addTo(lines, since, until)
		}
		return nil
	})
	if err != nil {
		return storage.GPUResult{}, err
	}
	coverage.Lost = coverage.Lost.Add(lost)
	for _, v := range views {
		if err := ctx.Err(); err != nil {
			return storage.GPUResult{}, err
		}
		v.addTo(lines, since, until)
	}
	return lines.Result(coverage)
}
