package cuda

import (
	"cmp"
	"time"
)

// Stepped is what to do with a function at whose beginning there is no instruction that the kernel emulates. A probe of it costs its
// caller some 10 µs a call instead of less than 1.
type Stepped string

const (
	// SkipStepped leaves it alone.
	SkipStepped Stepped = "skip"
	// SampleStepped looks at it for a tenth of the time, in pieces of a second, and takes what it sees ten times: an estimate.
	SampleStepped Stepped = "sample"
	// CountStepped looks at it all the time, whatever the cost.
	CountStepped Stepped = "count"
)

// SampleFactor is how many calls a sampled one stands for.
const SampleFactor = 10

// Options say how libraries are looked for. The zero value works.
type Options struct {
	// Interval is the time between two looks at all processes; 0: 10 s.
	Interval time.Duration
	// Stepped is SkipStepped if empty.
	Stepped Stepped

	// What tests choose: one link a probe, as before Linux 6.6; no word of new mappings, as on arm64 before 6.0; access to processes'
	// files by their root directories alone, as without CAP_CHECKPOINT_RESTORE; a window of samples; entries of the tables; how long
	// a file is kept that nobody maps.
	single, quiet, byRoot bool
	window                time.Duration
	entries               uint32
	keep                  time.Duration
}

// File is a library that was found, one for each inode of the host.
type File struct {
	// Name is the file's, as one of its processes has it mapped; Device and Inode are the file system's own.
	Name   string
	Device uint32
	Inode  uint64
	// Processes is how many have it mapped.
	Processes int
	// Functions is how many are counted; Stepped names those that cost too much to be, which are left alone unless Sampled.
	Functions int
	Stepped   []string
	Sampled   bool
	// Err is why it, or some of it, is not looked at.
	Err error
}

// Loss is what was seen since New and could not be counted.
type Loss struct {
	// Calls found no room.
	Calls uint64
	// Unmeasured waits were counted, but their time was not.
	Unmeasured uint64
	// Unreadable copies were counted, but not their bytes.
	Unreadable uint64
}

func compareFiles(a, b File) int {
	return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Device, b.Device), cmp.Compare(a.Inode, b.Inode))
}
