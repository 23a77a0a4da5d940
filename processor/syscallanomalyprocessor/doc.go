//go:generate go tool -modfile=../../internal/tools/go.mod mdatagen metadata.yaml

// Package syscallanomalyprocessor learns which system calls a workload makes, and tells when it does what it never did.
package syscallanomalyprocessor
