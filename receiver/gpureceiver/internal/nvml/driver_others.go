//go:build !linux || !cgo

package nvml

import "fmt"

// newOpener says that there is none: NVML is loaded by the C library's loader.
func newOpener() func([]string) (driver, error) {
	return func([]string) (driver, error) {
		return nil, fmt.Errorf("%w: it is not in this build, which is without cgo; use dcgm-exporter, or a build with CGO_ENABLED=1", ErrAbsent)
	}
}
