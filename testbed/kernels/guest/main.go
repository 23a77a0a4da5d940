//go:build linux

// Command guest is the init process of the virtual machines of package kernels: it makes a minimal system, runs the
// commands that it finds in the initramfs, says on the second serial port how each ended, and switches the machine off.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "guest:", err) // the console, which is the first serial port
	}
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

func run() error {
	if err := mounts(); err != nil {
		return err
	}
	out, err := os.OpenFile("/dev/ttyS1", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	if err := modules(); err != nil {
		return err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	err = commands(out)
	// What is written to a serial port is on its way until it is drained: TCSBRK with 1 is tcdrain(3).
	return errors.Join(err, unix.IoctlSetInt(int(out.Fd()), unix.TCSBRK, 1))
}

func mounts() error {
	for _, m := range []struct{ fstype, at string }{
		{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}, {"tmpfs", "/tmp"}, {"cgroup2", "/sys/fs/cgroup"},
	} {
		if err := os.MkdirAll(m.at, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.fstype, m.at, m.fstype, 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("cannot mount %s at %s: %w", m.fstype, m.at, err)
		}
	}
	return nil
}

// modules loads the files of /modules, whose names are in an order that satisfies their dependencies.
func modules() error {
	files, err := filepath.Glob("/modules/*.ko")
	if err != nil {
		return err
	}
	for _, name := range files {
		image, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if err := unix.InitModule(image, ""); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("cannot load module %s: %w", name, err)
		}
	}
	return nil
}

// commands runs each command line of /commands.json and prints its exit code after its output.
func commands(out io.Writer) error {
	text, err := os.ReadFile("/commands.json")
	if err != nil {
		return err
	}
	var lines [][]string
	if err := json.Unmarshal(text, &lines); err != nil {
		return err
	}
	for _, line := range lines {
		cmd := exec.Command(line[0], line[1:]...)
		cmd.Stdout, cmd.Stderr = out, out
		cmd.Dir = filepath.Join("/src", filepath.Base(line[0])) // where a test finds its testdata
		// The kernel gave init what it did not understand of its command line.
		cmd.Env = append(os.Environ(), "PATH=/bin", "NO_COLOR=1")
		err := cmd.Run()
		if cmd.ProcessState == nil {
			return fmt.Errorf("cannot run %v: %w", line, err)
		}
		fmt.Fprintf(out, "exit %d\n", cmd.ProcessState.ExitCode())
	}
	return nil
}
