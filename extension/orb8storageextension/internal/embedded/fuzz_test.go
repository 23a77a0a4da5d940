package embedded

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/orb8/orb8/extension/orb8storageextension/internal/block"
	"github.com/orb8/orb8/extension/orb8storageextension/internal/journal"
	"github.com/orb8/orb8/internal/storage"
)

// FuzzBlock changes some bytes of a block: reading it succeeds or fails, and takes no more memory than a block may.
func FuzzBlock(f *testing.F) {
	dir := f.TempDir()
	s, _ := openTestStore(f, dir)
	write(f, s, corpus(3))
	seal(f, s)
	require.NoError(f, s.Close())
	var blocks [][]byte
	names := blocksOf(f, dir)
	for i, name := range names {
		content, err := os.ReadFile(filepath.Join(dir, "blocks", name))
		require.NoError(f, err)
		blocks = append(blocks, content)
		f.Add(i, uint32(0), []byte{})
		f.Add(i, uint32(len(content)/2), []byte{0xff, 0})
		f.Add(i, uint32(len(content)-40), []byte{1, 2, 3, 4})
	}
	f.Fuzz(func(t *testing.T, which int, at uint32, bytes []byte) {
		which = int(uint(which) % uint(len(blocks)))
		content := append([]byte(nil), blocks[which]...)
		copy(content[int(at)%len(content):], bytes)
		name, ok := block.ParseName(names[which])
		require.True(t, ok)
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, names[which]), content, 0o600))
		file, err := block.Open(dir, name)
		if err != nil {
			return
		}
		defer file.Close()
		const all = 1<<63 - 1
		switch name.Kind {
		case "flows":
			for _, g := range file.Groups() {
				if v, err := readFlows(g); err == nil {
					newAggregation(-all, all).add(&v)
				}
			}
		case "lookups":
			_ = readLookups(file, -all, all, func(c *lookupChunk) error { return nil })
		case "syscalls":
			_ = readCounts(file, -all, all, func(c *countsChunk) error { return nil })
		case "anomalies":
			_ = readAnomalies(file, -all, all, func(c *anomalyChunk) error { return nil })
		case "gpu":
			for _, g := range file.Groups() {
				if v, err := readGPU(g, -all, all); err == nil {
					v.addTo(storage.NewTimelines(&storage.GPUQuery{}), -all, all)
				}
			}
		}
	})
}

// FuzzRecord decodes records of a journal as a disk may have changed them.
func FuzzRecord(f *testing.F) {
	for _, b := range []*journal.Batch{
		{Kind: journal.Flows, Flows: many(3, 1)}, {Kind: journal.NetworkStatus, NetworkStatus: status("node-a", 0, 1, 2)},
		{Kind: journal.GPU, GPU: scrape(2, 1)},
	} {
		record, err := b.Encode(nil)
		require.NoError(f, err)
		f.Add(record)
	}
	f.Fuzz(func(t *testing.T, record []byte) {
		b, err := journal.Decode(record)
		if err != nil {
			return
		}
		again, err := b.Encode(nil)
		require.NoError(t, err)
		_, err = journal.Decode(again)
		require.NoError(t, err)
	})
}
