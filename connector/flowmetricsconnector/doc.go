//go:generate go tool -modfile=../../internal/tools/go.mod mdatagen metadata.yaml

// Package flowmetricsconnector sums flow records by the workloads that they are between.
package flowmetricsconnector
