//go:build linux

// Package container runs commands in containers of runc, which is what containerd, CRI-O, Docker and Podman run them with.
//
// A container has a root file system of its own, of which busybox is all, namespaces of its own, and a cgroup that is named as
// those of containerd are.
package container

import (
	"bytes"
	"context"
	"crypto/rand"
	"debug/elf"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/orb8/orb8/internal/cgroup"
	"github.com/orb8/orb8/internal/testutil"
)

// Options of a container. The zero value runs as root, with some capabilities and no seccomp profile.
type Options struct {
	// Command is run by busybox: its first word is one of busybox's programs.
	Command []string
	// User is the user and group id.
	User uint32
	// NoNewPrivileges has runc install the profile as the last thing before the program. Without, it drops privileges after that.
	NoNewPrivileges bool
	// Seccomp is a linux.seccomp of the OCI runtime specification; nil is none.
	Seccomp json.RawMessage
}

// Result is what became of a container.
type Result struct {
	// ID is that of the container: 64 hexadecimal digits.
	ID string
	// ExitCode is that of the command, 128 and a signal's number if that ended it.
	ExitCode int
	// Output is what the command, and runc itself, have written to stdout and stderr.
	Output string
}

// patience is how long a command may take.
const patience = time.Minute

// Run runs a container to its end and leaves nothing of it. Without root, runc or busybox the test is skipped, or fails where runc
// is required.
func Run(t testing.TB, o Options) Result {
	t.Helper()
	testutil.Require(t, "runc", os.Geteuid() == 0, "containers need root")
	runc, err := exec.LookPath("runc")
	testutil.Require(t, "runc", err == nil, "runc is not installed")
	busybox, err := exec.LookPath("busybox")
	testutil.Require(t, "runc", err == nil && isStatic(busybox), "busybox-static is not installed")
	hierarchy, err := cgroup.FindMount("")
	require.NoError(t, err)

	var id [32]byte
	_, _ = rand.Read(id[:]) // never fails
	r := Result{ID: hex.EncodeToString(id[:])}
	group := filepath.Join(hierarchy.Path, r.ID)
	bundle, state := t.TempDir(), t.TempDir()
	require.NoError(t, makeRoot(filepath.Join(bundle, "rootfs"), busybox))
	self, err := os.Executable()
	require.NoError(t, err)
	config, err := json.Marshal(specOf(r.ID, group, self, o))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(bundle, "config.json"), config, 0o600))

	defer remove(t, runc, state, r.ID, group)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, runc, "--root", state, "run", "--bundle", bundle, r.ID)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	require.NoError(t, ctx.Err(), "%s", &out)
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		require.NoError(t, err)
	}
	r.ExitCode, r.Output = cmd.ProcessState.ExitCode(), out.String()
	return r
}

// isStatic tells whether a program needs no other files.
func isStatic(program string) bool {
	f, err := elf.Open(program)
	if err != nil {
		return false
	}
	defer f.Close()
	return !slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP })
}

// makeRoot makes a root file system of busybox, the directories to mount on, and nothing else.
func makeRoot(dir, busybox string) error {
	for _, name := range []string{"bin", "dev", "proc", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			return err
		}
	}
	// runc mounts with the mode of what it mounts on.
	if err := os.Chmod(filepath.Join(dir, "tmp"), os.ModeSticky|0o777); err != nil {
		return err
	}
	program, err := os.ReadFile(busybox)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "bin", "busybox"), program, 0o755)
}

// remove removes what runc leaves: all of a container that it was not let finish, and the cgroup that it does not know of.
func remove(t testing.TB, runc, state, id, group string) {
	t.Helper()
	out, err := exec.Command(runc, "--root", state, "delete", "--force", id).CombinedOutput()
	assert.NoError(t, err, "%s", out)
	// The last process leaves its cgroup a moment after it has been reaped.
	assert.Eventually(t, func() bool {
		err := os.Remove(group)
		return err == nil || errors.Is(err, fs.ErrNotExist)
	}, patience, time.Millisecond, "cannot remove %s", group)
}

const hookVariable = "ORB8_TESTBED_CGROUP"

// RunIfHook plays the part of the hook that moves a container's first process to its cgroup, and ends this process. It returns
// at once in any other process. Call it first in TestMain.
//
// runc 1.1 does not use the cgroup v2 hierarchy of machines that have the controllers of v1 in others. Where there
// is v2 alone the container is already in that cgroup.
func RunIfHook() {
	group, ok := os.LookupEnv(hookVariable)
	if !ok {
		return
	}
	if err := enter(group, os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// enter moves the container of which the runtime tells to a cgroup.
func enter(group string, state io.Reader) error {
	var container struct{ PID int }
	if err := json.NewDecoder(state).Decode(&container); err != nil {
		return fmt.Errorf("cannot read the state of the container: %w", err)
	}
	if err := os.MkdirAll(group, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(group, "cgroup.procs"), strconv.AppendInt(nil, int64(container.PID), 10), 0)
}
