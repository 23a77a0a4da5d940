//go:build linux

package cluster

import (
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestGoMod(t *testing.T) {
	got, err := kubernetesModule.goMod([]byte(`module k8s.io/kubernetes

go 1.26.0

godebug default=go1.26

require (
	k8s.io/api v0.0.0
	example.com/other v1.2.3
)

replace (
	k8s.io/api => ./staging/src/k8s.io/api
	k8s.io/client-go => ./staging/src/k8s.io/client-go
)
`))
	require.NoError(t, err)
	assert.Equal(t, `module orb8.local/build
go 1.26.0
godebug default=go1.26
require k8s.io/kubernetes v1.37.2
replace k8s.io/api => k8s.io/api v0.37.2
replace k8s.io/client-go => k8s.io/client-go v0.37.2
`, string(got))
	_, err = kubernetesModule.goMod(nil)
	require.ErrorContains(t, err, "says no version of Go")
}

func TestMissing(t *testing.T) {
	t.Setenv(envCache, t.TempDir())
	c, err := openCache()
	require.NoError(t, err)
	err = c.missing("kubectl")
	require.ErrorContains(t, err, "kubectl v1.37.2 is not built: run `make cluster-build`")
	require.ErrorContains(t, err, "etcd and containerd are not there: run `make cluster-build`")
}

// TestLocked counts in a file, which goes wrong if two do it at once.
func TestLocked(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cache")
	count := filepath.Join(dir, "count")
	require.NoError(t, many(100, func(int) error {
		return locked(dir, func() error {
			var n int
			if text, err := os.ReadFile(count); err == nil {
				if _, err := fmt.Sscan(string(text), &n); err != nil {
					return err
				}
			}
			return os.WriteFile(count, fmt.Append(nil, n+1), 0o600)
		})
	}))
	text, err := os.ReadFile(count)
	require.NoError(t, err)
	assert.Equal(t, "100", string(text))
}

func TestMany(t *testing.T) {
	var sum atomic.Int64
	require.NoError(t, many(1000, func(i int) error { sum.Add(int64(i)); return nil }))
	assert.EqualValues(t, 999*1000/2, sum.Load())
	require.NoError(t, many(0, func(int) error { return assert.AnError }))
	var calls atomic.Int64
	require.ErrorIs(t, many(1000, func(int) error { calls.Add(1); return assert.AnError }), assert.AnError)
	assert.Less(t, calls.Load(), int64(1000), "it goes on after a failure")
}
