//go:build !linux

package residency

// DropFilePages does nothing: eBPF is a part of Linux, and so is all that needs many pages to start.
func DropFilePages() error { return nil }
