package embedded

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/orb8/orb8/internal/storage"
)

func TestAMergeThatWasCutShort(t *testing.T) {
	dir := t.TempDir()
	s, _ := openTestStore(t, dir)
	parts := map[string][]byte{}
	for i := range fanIn {
		s.WriteFlows(t.Context(), many(10, i))
		s.disk.merging.Lock() // or it would merge before the last part is copied
		seal(t, s)
		name := fmt.Sprintf("flows-%08d-%08d.parquet", i, i)
		content, err := os.ReadFile(filepath.Join(dir, "blocks", name))
		s.disk.merging.Unlock()
		require.NoError(t, err)
		parts[name] = content
	}
	upkeep(t, s)
	require.NoError(t, s.Close())
	merged := blocksOf(t, dir)
	require.Equal(t, []string{fmt.Sprintf("flows-00000000-%08d.parquet", fanIn-1)}, merged)
	for name, content := range parts {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "blocks", name), content, 0o600))
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "blocks", "flows-00000009-00000009.parquet.tmp"), []byte("PAR1"), 0o600))
	s, _ = openTestStore(t, dir)
	assert.EqualValues(t, 10*fanIn, s.Status().Store.Records)
	assert.Equal(t, merged, blocksOf(t, dir))
}

func TestADamagedBlockIsSetAside(t *testing.T) {
	for name, damage := range map[string]func([]byte) []byte{
		"torn":            func(b []byte) []byte { return b[:len(b)/2] },
		"empty":           func([]byte) []byte { return nil },
		"bits turned":     func(b []byte) []byte { b[len(b)/3] ^= 0xff; return b },
		"not of orb8":     func([]byte) []byte { return []byte("PAR1 something else PAR1") },
		"a turned footer": func(b []byte) []byte { b[len(b)-100] ^= 0xff; return b },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s, _ := openTestStore(t, dir)
			s.WriteFlows(t.Context(), many(3000, 1))
			seal(t, s)
			s.WriteFlows(t.Context(), many(10, 2))
			seal(t, s)
			require.NoError(t, s.Close())
			path := filepath.Join(dir, "blocks", blocksOf(t, dir)[0])
			content, err := os.ReadFile(path)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(path, damage(content), 0o600))
			require.NoError(t, os.Remove(path+".index")) // or nobody would look

			s, _ = openTestStore(t, dir)
			result := query(t, s, storage.FlowQuery{})
			again := query(t, s, storage.FlowQuery{})
			assert.Equal(t, 10, again.Matched)
			assert.Equal(t, result.Lost, again.Lost)
			assert.EqualValues(t, 10, s.Status().Store.Records)
			assert.NoFileExists(t, path)
			assert.FileExists(t, path+".damaged")
			s.WriteFlows(t.Context(), many(10, 3))
			seal(t, s)
			assert.EqualValues(t, 20, s.Status().Store.Records)
		})
	}
}

func TestATornJournal(t *testing.T) {
	dir := t.TempDir()
	s, _ := openTestStore(t, dir)
	for i := range 10 {
		s.WriteFlows(t.Context(), many(100, i))
	}
	require.NoError(t, s.Close())
	// The first segment is that of the records.
	path := filepath.Join(dir, "journal", "00000000")
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	end := len(content)
	for end > 0 && content[end-1] == 0 {
		end--
	}
	require.NoError(t, os.WriteFile(path, content[:end-10], 0o600))
	s, _ = openTestStore(t, dir)
	assert.EqualValues(t, 900, s.Status().Store.Records, "all but the last batch")
	fresh, err := s.WriteFlows(t.Context(), many(100, 9))
	require.NoError(t, err)
	assert.True(t, fresh, "which is taken when it comes again")
	require.NoError(t, s.Close())
	s, _ = openTestStore(t, dir)
	assert.EqualValues(t, 1000, s.Status().Store.Records)
}

// While blocks cannot be written, what comes is refused, and taken again as soon as they can.
func TestRefusesWhatItCannotKeep(t *testing.T) {
	dir := t.TempDir()
	reports := make(chan error, 10)
	s, _ := openTestStore(t, dir, func(s *Settings) {
		s.Disk.HeadBytes = MinHeadBytes
		s.Disk.Report = func(err error) { reports <- err }
	})
	blocks := filepath.Join(dir, "blocks")
	require.NoError(t, os.Rename(blocks, blocks+"-away"))
	var err error
	var taken uint64
	for i := 0; err == nil; i++ {
		if _, err = s.WriteFlows(t.Context(), many(1000, i)); err == nil {
			taken += 1000
		}
	}
	assert.ErrorContains(t, err, "the store takes no more records until it can write to its directory")
	assert.ErrorContains(t, <-reports, "cannot write the block")
	assert.NotEmpty(t, query(t, s, storage.FlowQuery{Limit: 1}).Flows, "queries go on")
	require.NoError(t, os.Rename(blocks+"-away", blocks))
	assert.NoError(t, <-reports, "it finds out by itself")
	_, err = s.WriteFlows(t.Context(), many(1000, 9999))
	require.NoError(t, err)
	assert.Equal(t, taken+1000, s.Status().Store.Records)
}
