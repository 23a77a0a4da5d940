//go:build linux

package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// daemons are the processes of a cluster. Files in the directory, NAME.pid and NAME.log, tell of them to whoever comes
// later: the command that takes the cluster down is not the one that brought it up.
type daemons string

// grace is what a daemon gets between SIGTERM and SIGKILL.
const grace = 10 * time.Second

// start starts a daemon that writes to its log.
func (d daemons) start(name string, cmd *exec.Cmd) error {
	if err := os.MkdirAll(string(d), 0o755); err != nil {
		return err
	}
	log, err := os.OpenFile(d.logFile(name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("cannot start %s: %w", name, err)
	}
	go func() { _ = cmd.Wait() }() // or it stays a zombie for as long as this process lives
	started, err := startTime(cmd.Process.Pid)
	if err != nil {
		return fmt.Errorf("%s ended at once: %w\n%s", name, err, d.logTail(name))
	}
	return writeFile(d.pidFile(name), fmt.Appendf(nil, "%d %d\n", cmd.Process.Pid, started), 0o644)
}

// stop ends a daemon and returns when it is gone, at once if it was not running.
func (d daemons) stop(name string) error {
	fd, err := d.open(name)
	if fd < 0 || err != nil {
		return err
	}
	defer unix.Close(fd)
	for _, signal := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
		if err := unix.PidfdSendSignal(fd, signal, nil, 0); err != nil && err != unix.ESRCH {
			return fmt.Errorf("cannot end %s: %w", name, err)
		}
		if gone, err := awaitEnd(fd, grace); gone || err != nil {
			return err
		}
	}
	return fmt.Errorf("%s still runs after SIGKILL", name)
}

// awaitEnd waits for the end of a process.
func awaitEnd(pidfd int, timeout time.Duration) (gone bool, err error) {
	for deadline := time.Now().Add(timeout); ; {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, max(0, int(time.Until(deadline).Milliseconds())))
		if err != unix.EINTR {
			return n > 0, err
		}
	}
}

func (d daemons) running(name string) bool {
	fd, err := d.open(name)
	if fd < 0 || err != nil {
		return false
	}
	defer unix.Close(fd)
	gone, err := awaitEnd(fd, 0)
	return err == nil && !gone
}

// open returns a file descriptor of the daemon's process, or -1 if it is gone. Its number may belong to another
// process by now, which is told by when that started.
func (d daemons) open(name string) (int, error) {
	text, err := os.ReadFile(d.pidFile(name))
	if errors.Is(err, fs.ErrNotExist) {
		return -1, nil
	}
	if err != nil {
		return -1, err
	}
	var pid int
	var started uint64
	if _, err := fmt.Sscan(string(text), &pid, &started); err != nil {
		return -1, fmt.Errorf("cannot read %s: %w", d.pidFile(name), err)
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return -1, nil
	}
	if now, err := startTime(pid); err != nil || now != started {
		_ = unix.Close(fd)
		return -1, nil
	}
	return fd, nil
}

// pid returns the number of a running daemon's process.
func (d daemons) pid(name string) (pid int, err error) {
	if !d.running(name) {
		return 0, fmt.Errorf("%s does not run\n%s", name, d.logTail(name))
	}
	text, err := os.ReadFile(d.pidFile(name))
	if err == nil {
		_, err = fmt.Sscan(string(text), &pid)
	}
	return pid, err
}

// startTime returns when a process started, in clock ticks since boot.
func startTime(pid int) (ticks uint64, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// Field 22. The second is the program's name in parentheses, and may hold blanks and parentheses of its own.
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(fields) < 20 {
		return 0, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields)+2)
	}
	_, err = fmt.Sscan(string(fields[19]), &ticks)
	return ticks, err
}

func (d daemons) pidFile(name string) string { return filepath.Join(string(d), name+".pid") }

func (d daemons) logFile(name string) string { return filepath.Join(string(d), name+".log") }

// logTail returns the end of a daemon's log, for errors.
func (d daemons) logTail(name string) string {
	const lines = 20
	text, err := os.ReadFile(d.logFile(name))
	if err != nil {
		return ""
	}
	all := strings.Split(strings.TrimSpace(string(text)), "\n")
	return fmt.Sprintf("%s:\n%s", d.logFile(name), strings.Join(all[max(0, len(all)-lines):], "\n"))
}
