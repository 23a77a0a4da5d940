// Package preflight tells whether orb8 can observe this host, and what to do if it cannot.
package preflight

import (
	"errors"
	"strings"
)

// Status is the outcome of a check.
type Status uint8

const (
	// OK means that nothing is amiss.
	OK Status = iota
	// Warn means that orb8 works, with less to show.
	Warn
	// Fail means that orb8 cannot collect.
	Fail
)

// String returns ok, warn or fail.
func (s Status) String() string {
	switch s {
	case OK:
		return "ok"
	case Warn:
		return "warn"
	}
	return "fail"
}

// MarshalText makes a status a string in JSON.
func (s Status) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Check is what was found out about one thing that orb8 needs.
type Check struct {
	Name   string `json:"name"`
	Status Status `json:"status"`
	// Detail is what was found.
	Detail string `json:"detail"`
	// Fix is what to do about it; empty if Status is OK.
	Fix string `json:"fix,omitempty"`
}

// The values of Options.Mode.
const (
	ModeAuto   = "auto"
	ModeCgroup = "cgroup"
	ModeTC     = "tc"

	// modeSyscalls is to watch no packets but system calls.
	modeSyscalls = "syscalls"
)

// Options says what orb8 is going to do.
type Options struct {
	// CgroupPath is the root of the cgroup v2 hierarchy; if empty, it is looked up in the mounts.
	CgroupPath string
	// Mode is where packets are watched: ModeCgroup, ModeTC, or ModeAuto, which is also what empty means.
	Mode string
	// Syscalls asks also whether system calls can be counted. That they cannot is a warning: packets can.
	Syscalls bool
}

// Err returns nil if no check has failed, or else one line that names all that have and what to do about them.
func Err(checks []Check) error {
	var failed []string
	for _, c := range checks {
		if c.Status == Fail {
			failed = append(failed, c.Name+": "+c.Detail+"; "+c.Fix)
		}
	}
	if len(failed) == 0 {
		return nil
	}
	return errors.New("orb8 cannot collect on this host: " + strings.Join(failed, "; "))
}
