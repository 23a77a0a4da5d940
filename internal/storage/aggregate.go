package storage

import (
	"errors"
	"time"
)

// Signal is a kind of record.
type Signal uint8

const (
	SignalFlows Signal = iota
	SignalLookups
	SignalSyscalls
	SignalAnomalies
)

// AggregateQuery says what to sum, and by what.
type AggregateQuery struct {
	// Since and Until bound the range as in the signal's own query.
	Since, Until time.Time
	Signal       Signal
	// Of the selections, the signal's own counts.
	Flows     Selection
	Lookups   LookupSelection
	Syscalls  SyscallSelection
	Anomalies AnomalySelection
	// By are dimensions of the signal: records that have the same values of all are one group. None makes one group.
	By []string
	// Measures are what is summed, one at least. The first says which groups are largest.
	Measures []string
	// Top is the most groups to return; 0 means no limit.
	Top int
	// Bucket divides the range into buckets that begin at multiples of it since the epoch; a record is in that of its start. 0 is
	// none.
	Bucket time.Duration
	// MaxGroups is how many groups and buckets of groups there may be; 0 means no limit.
	MaxGroups int
}

// ErrTooManyGroups is the error of an aggregation that has more than MaxGroups.
var ErrTooManyGroups = errors.New("too many groups")

// AggregateResult is the answer to an AggregateQuery.
type AggregateResult struct {
	// Groups are ordered by their values, largest first, then by By.
	Groups []Group
	// Total is of all groups, those too that Top cut.
	Total Group
	// Matched is of groups.
	Coverage
}

// Group is what the records with the same values of all dimensions sum up to.
type Group struct {
	// By has a value for each dimension, empty where it is not known; Values a sum for each measure.
	By     []string
	Values []uint64
	// Buckets are ordered by time. Those in which there was nothing are left out.
	Buckets []Bucket
}

// Bucket is the part of a group in a part of the range.
type Bucket struct {
	Start  time.Time
	Values []uint64
}
