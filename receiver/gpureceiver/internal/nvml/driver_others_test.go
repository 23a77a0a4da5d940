//go:build !cgo

package nvml

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestABuildWithoutCgoSaysSo(t *testing.T) {
	s := New(Options{LibraryPaths: []string{"libnvidia-ml.so.1"}})
	_, err := s.Snapshot(time.Now())
	assert.ErrorIs(t, err, ErrAbsent)
	assert.EqualError(t, err, "NVML is not there: it is not in this build, which is without cgo; use dcgm-exporter, or a build with CGO_ENABLED=1")
	assert.NoError(t, s.Close())
}
