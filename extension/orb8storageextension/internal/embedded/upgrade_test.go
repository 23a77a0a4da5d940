package embedded

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// testdata/unlabelled is what an orb8 that knew no labels wrote of the same corpus: a second of it in blocks, another in the journal.
func TestStoreFromBeforeLabels(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	require.NoError(t, os.CopyFS(dir, os.DirFS(filepath.Join("testdata", "unlabelled"))))
	old, _ := openTestStore(t, dir)
	fresh, _ := openTestStore(t, t.TempDir())
	write(t, fresh, labelled(2, ""))
	want, got := ask(t, fresh), ask(t, old)
	// Nor did it know GPUs, of which two samples a second are written now.
	want.GPU, got.GPU, want.Records = nil, nil, want.Records-4
	for i := range want.Nodes {
		want.Nodes[i].GPU = nil
	}
	assert.Equal(t, want, got)
}
