//go:build linux

// Package workload runs processes of which it is known what they ask of the kernel.
//
// They are processes of their own, because a cgroup holds processes: the test binary starts itself again, and RunIfChild
// in its TestMain makes it play the part.
package workload

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/testbed/internal/lab"
)

// Load is what a process does. Exactly one of its fields is set.
type Load struct {
	Calls    *Calls
	Web      *Web
	Breakout *Breakout
	Feeder   *Feeder
}

// Calls are made by one thread in rounds, each call once a round. Choose calls that the Go runtime itself never makes.
type Calls struct {
	Numbers []uintptr
	Rounds  int
	// Pause is slept after every Burst rounds; 0 means that no pause is made.
	Pause time.Duration
	Burst int
}

// nobody is a process id beyond the largest there can be.
const nobody = 1 << 30

// Breakout tries what a process does that wants out of its container: unshare, mount, setns and ptrace, in namespaces of its own.
type Breakout struct {
	// Dir is an empty directory to mount on.
	Dir string
}

// Process is a running workload.
type Process struct {
	t     testing.TB
	cmd   *exec.Cmd
	stdin io.WriteCloser
	out   *bufio.Reader
	errs  strings.Builder
}

const variable = "ORB8_TESTBED_WORKLOAD"

// Start starts a process in a cgroup and waits until it is ready. It does nothing until Go, and is killed when the test ends.
func Start(t testing.TB, cgroup *lab.Cgroup, load Load) *Process {
	t.Helper()
	text, err := json.Marshal(load)
	require.NoError(t, err)
	p := &Process{t: t, cmd: exec.Command("/proc/self/exe")}
	p.cmd.Env = append(os.Environ(), variable+"="+string(text), "GOMAXPROCS=1")
	p.cmd.Stderr = &p.errs
	p.stdin, err = p.cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := p.cmd.StdoutPipe()
	require.NoError(t, err)
	p.out = bufio.NewReader(stdout)
	require.NoError(t, cgroup.Start(p.cmd))
	t.Cleanup(func() {
		if p.cmd.ProcessState == nil {
			_ = p.cmd.Process.Kill()
			_ = p.cmd.Wait()
		}
	})
	p.expect("ready")
	return p
}

// PID returns the process's id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Go lets the process do its work.
func (p *Process) Go() {
	p.t.Helper()
	_, err := io.WriteString(p.stdin, "go\n")
	require.NoError(p.t, err)
}

// Done waits until the process has done its work. It stays alive.
func (p *Process) Done() {
	p.t.Helper()
	p.expect("done")
}

// End lets the process exit, and waits for that.
func (p *Process) End() {
	p.t.Helper()
	require.NoError(p.t, p.stdin.Close())
	require.NoError(p.t, p.cmd.Wait(), p.errs.String())
}

func (p *Process) expect(word string) {
	p.t.Helper()
	line, err := p.out.ReadString('\n')
	require.NoError(p.t, err, "no %q from the workload: %s", word, &p.errs)
	require.Equal(p.t, word, strings.TrimSpace(line))
}

// RunIfChild plays the part that Start gave to this process and ends it. It returns at once in any other process. Call it first
// in TestMain.
func RunIfChild() {
	text, ok := os.LookupEnv(variable)
	if !ok {
		return
	}
	if err := play(text); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func play(text string) error {
	var load Load
	if err := json.Unmarshal([]byte(text), &load); err != nil {
		return fmt.Errorf("%s: %w", variable, err)
	}
	work := load.Calls.run
	switch {
	case load.Web != nil:
		work = load.Web.run
	case load.Breakout != nil:
		work = load.Breakout.run
	case load.Feeder != nil:
		work = load.Feeder.run
	}
	runtime.LockOSThread()
	in := bufio.NewReader(os.Stdin)
	fmt.Println("ready")
	if _, err := in.ReadString('\n'); err != nil {
		return fmt.Errorf("not told to go: %w", err)
	}
	var done atomic.Bool
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(io.Discard, in)
		if !done.Load() {
			os.Exit(1) // the test was killed
		}
	}()
	if err := work(); err != nil {
		return err
	}
	done.Store(true)
	fmt.Println("done")
	<-ended
	return nil
}

func (c *Calls) run() error {
	for round := 1; round <= c.Rounds; round++ {
		for _, number := range c.Numbers {
			// What it returns does not matter: it was called.
			_, _, _ = unix.RawSyscall(number, 0, 0, 0)
		}
		if c.Pause > 0 && round%c.Burst == 0 {
			time.Sleep(c.Pause)
		}
	}
	return nil
}

func (b *Breakout) run() error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("cannot unshare the mount namespace: %w", err)
	}
	if err := unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("cannot make mounts private: %w", err)
	}
	if err := unix.Mount("orb8-breakout", b.Dir, "tmpfs", 0, ""); err != nil {
		return fmt.Errorf("cannot mount on %s: %w", b.Dir, err)
	}
	ns, err := os.Open("/proc/self/ns/uts")
	if err != nil {
		return err
	}
	defer ns.Close()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWUTS); err != nil {
		return fmt.Errorf("cannot enter the UTS namespace: %w", err)
	}
	if err := unix.PtraceAttach(nobody); err != unix.ESRCH {
		return fmt.Errorf("tracing nobody: %w", err)
	}
	return nil
}
