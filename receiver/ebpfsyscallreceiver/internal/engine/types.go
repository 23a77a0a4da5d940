// Package engine loads the programs that count system calls, attaches them, and reads what they counted.
package engine

import "github.com/orb8/orb8/internal/syscalls"

// Options say what is told beyond the counts. The zero value counts calls and tells of none.
type Options struct {
	// RingBufferSize is in bytes, a power of two and a multiple of the page size. Zero is the smallest.
	RingBufferSize uint32
	// Policy says which events there are of a call, and is asked once for each call that Calls lists and once for a call with
	// Number -1, which stands for all others of its ABI. Nil: there are no events.
	Policy func(syscalls.Call) Policy
	// SelfEvents tells of this process's calls too. They are counted in any case. Reading events makes calls, of which there are
	// then events to read.
	SelfEvents bool
	// Latency measures how long calls take and what they return, by a second program at their return.
	Latency bool

	// What tests make small: rows of counters, entries of the tables behind them, cells of latencies, and places for calls under
	// way, a power of two. Zero is the default.
	rows, overflow, cells, starts uint32
	// helpers has programs ask the kernel where they could read its types, as before Linux 5.12.
	helpers bool
}

// Policy is which events there are of one system call.
type Policy struct {
	// Sampling makes one in so many calls of a cgroup an event, by CPU and interval, and besides the first of them; 1: every call, 0: none.
	Sampling uint32
	// Always exempts events from thinning: they go in as long as the ring buffer has room. Sampling must be 1.
	Always bool
	// Text is the parameter that is read as a string, counted from 1, or as bytes whose number is the parameter after it; 0: none.
	Text  uint8
	Bytes bool
}

// Thinning is by how much events are sampled more sparsely when more than four fifths of the ring buffer are unread.
const Thinning = 10

// MaxText is how many bytes of a parameter are read.
const MaxText = 128

// TextState says what Event.Text is.
type TextState uint8

const (
	// TextNone: nothing was to be read.
	TextNone TextState = iota
	// TextWhole: the whole string, without its NUL, or all bytes.
	TextWhole
	// TextCut: the beginning of a longer one.
	TextCut
	// TextUnreadable: the pointer leads nowhere, or to a page that was not in memory.
	TextUnreadable
)

// Event is one system call as it was entered.
type Event struct {
	// Time is that of CLOCK_MONOTONIC.
	Time     uint64
	CgroupID uint64
	Call     syscalls.Call
	// PID and TID are process and thread in the first pid namespace.
	PID, TID uint32
	// Comm is the thread's name. As Text it is valid until the yield function returns.
	Comm []byte
	Args [6]uint64
	// Sampling says that the event stands for so many calls: 1 for the first of an interval, then Policy.Sampling, times Thinning
	// for one that was let through while others were thinned out.
	Sampling uint32
	Text     []byte
	State    TextState
}

// Loss is what was seen since New and could be neither counted nor reported.
type Loss struct {
	// Calls could be counted to no cgroup.
	Calls uint64
	// Events found the ring buffer full. Their calls were counted.
	Events uint64
	// Thinned events were left out because the ring buffer was nearly full.
	Thinned uint64
	// Unmeasured calls were counted, but are in no latency, or their error in none.
	Unmeasured uint64
}
