//go:build linux

package testbed

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/testbed/internal/collector"
	"github.com/orb8/orb8/testbed/internal/container"
)

// errand is what the container is for: a shell that runs programs, writes and reads files, and runs its arguments as one more
// program. What it calls is the same each time: nothing depends on who is faster. It ends with a call of times(2), which nobody else
// makes.
const errand = `set -e
	echo one two > /tmp/words; for i in 1 2 3; do busybox cat /tmp/words; done | busybox sort | busybox wc -w
	busybox sleep 0.05; busybox ls -l /proc/self /tmp > /tmp/listing
	busybox "$@"
	times`

// A profile of what a container did lets it do that again, and nothing more.
func TestProfileIsWhatTheContainerNeeds(t *testing.T) {
	usual, extra := []string{"sh", "-c", errand, "sh", "true"}, []string{"sh", "-c", errand, "sh", "ln", "/tmp/words", "/tmp/more"}
	// A container that takes more than two intervals to be set up is one of which the start was not seen: they are as long as shipped.
	c := collector.Start(t, collector.Options{})
	for name, o := range map[string]container.Options{
		"root": {}, "another user": {User: 1000}, "no new privileges": {User: 1000, NoNewPrivileges: true},
	} {
		t.Run(name, func(t *testing.T) {
			run := func(command []string, profile json.RawMessage) container.Result {
				o.Command, o.Seccomp = command, profile
				return container.Run(t, o)
			}
			r := run(extra, nil)
			require.Zero(t, r.ExitCode, "link(2) is one that may fail by seccomp alone: %s", r.Output)
			observed := run(usual, nil)
			require.Zero(t, observed.ExitCode, observed.Output)
			kill, errno := profileOf(t, c, observed.ID, "kill"), profileOf(t, c, observed.ID, "errno")

			r = run(usual, kill)
			assert.Zero(t, r.ExitCode, r.Output)
			assert.Contains(t, r.Output, "6\n", "words")
			r = run(extra, kill)
			assert.Equal(t, 128+int(unix.SIGSYS), r.ExitCode, r.Output)
			assert.Contains(t, r.Output, "Bad system call")

			r = run(usual, errno)
			assert.Zero(t, r.ExitCode, r.Output)
			r = run(extra, errno)
			assert.Equal(t, 1, r.ExitCode, r.Output)
			assert.Contains(t, r.Output, "Operation not permitted")
		})
	}
}

// profileOf returns the profile of a container that has done its errand.
func profileOf(t *testing.T, c *collector.Collector, id, action string) json.RawMessage {
	t.Helper()
	var calls map[string]uint64
	collector.Await(t, "the last call of the container", func() bool {
		calls = map[string]uint64{}
		for _, row := range c.Syscalls("--container", id) {
			calls[row.Syscall] += row.Calls
		}
		return calls["times"] > 0
	}, func() any { return calls })
	stdout, stderr, code := c.CLI("seccomp", "--container", id, "--default", action)
	require.Zero(t, code, stderr)
	assert.Contains(t, stderr, "observed 1 container")
	assert.Contains(t, stderr, "lost 0\n")
	assert.NotContains(t, stderr, "was not seen")
	for _, setup := range []string{"mount", "pivot_root"} {
		assert.Contains(t, stderr, setup, "runc was seen to call it")
		assert.NotContains(t, stdout, `"`+setup+`"`, "and the container may not")
	}
	return json.RawMessage(stdout)
}
