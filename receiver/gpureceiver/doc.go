//go:generate go tool -modfile=../../internal/tools/go.mod mdatagen metadata.yaml

// Package gpureceiver tells what the GPUs of this host do, and for which containers.
package gpureceiver
