//go:build linux

package lab

import (
	"fmt"
	"os"
	"runtime"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// quiet returns the settings of a namespace that speaks only when spoken to, and only once.
func quiet() map[string]string {
	return map[string]string{
		"net/ipv6/conf/default/accept_dad":    "0",
		"net/ipv6/conf/default/accept_ra":     "0",
		"net/ipv6/conf/default/autoconf":      "0",
		"net/ipv6/conf/default/addr_gen_mode": "1", // no link-local address
		"net/ipv4/tcp_early_retrans":          "0", // no tail loss probes when the machine is busy
	}
}

// newNamespace makes a network namespace without a name, so that the kernel removes it, and every interface in it, when
// the test and its children are gone, however they end.
func newNamespace(t testing.TB) netns.NsHandle {
	t.Helper()
	var ns netns.NsHandle
	err := onThread(func() (err error) {
		if ns, err = netns.New(); err != nil {
			return fmt.Errorf("cannot make a network namespace: %w", err)
		}
		for name, value := range quiet() {
			if err := os.WriteFile("/proc/sys/"+name, []byte(value), 0); err != nil {
				return err
			}
		}
		return nil
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, ns.Close()) })
	return ns
}

func inNamespace(ns netns.NsHandle, f func() error) error {
	return onThread(func() error {
		if err := netns.Set(ns); err != nil {
			return fmt.Errorf("cannot enter the network namespace: %w", err)
		}
		return f()
	})
}

// onThread runs f on a locked thread and brings the thread back to its network namespace. The thread must live on: a
// child with a parent-death signal dies with the thread that started it.
func onThread(f func() error) error {
	runtime.LockOSThread()
	home, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("cannot open the network namespace: %w", err)
	}
	defer func() {
		// A thread that cannot go home stays locked, so that no other goroutine gets it.
		if netns.Set(home) == nil {
			runtime.UnlockOSThread()
		}
		_ = home.Close()
	}()
	return f()
}

// offloadsOff makes the interface of the current namespace send and receive packets no longer than its MTU, as
// `ethtool -K` does with rx, tx, sg, tso, gso and gro.
func offloadsOff(device string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for _, cmd := range []uint32{
		unix.ETHTOOL_STSO, unix.ETHTOOL_SGSO, unix.ETHTOOL_SGRO, unix.ETHTOOL_SSG, unix.ETHTOOL_STXCSUM, unix.ETHTOOL_SRXCSUM,
	} {
		if err := ethtoolOff(fd, device, cmd); err != nil {
			return fmt.Errorf("ethtool command %#x on %s: %w", cmd, device, err)
		}
	}
	return nil
}

func ethtoolOff(fd int, device string, cmd uint32) error {
	value := struct{ cmd, data uint32 }{cmd: cmd}
	req := struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}{data: unsafe.Pointer(&value)}
	copy(req.name[:unix.IFNAMSIZ-1], device)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req))); errno != 0 {
		return errno
	}
	return nil
}
