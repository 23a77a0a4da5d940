//go:build linux

package cluster

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// node is where a whole cluster runs: cgroups of its own, which look to it like the roots of theirs, and namespaces for
// mounts and the network. Its processes have numbers of the machine, as those of a real node have.
type node struct {
	dir     string
	daemons daemons
	cgroups cgroups
	env     []string
}

// holder is the daemon that keeps the namespaces, and watcher the one that ends everything when its owner is gone.
const (
	holder  = "holder"
	watcher = "watcher"
)

// joinAndRun has directories of cgroups as its arguments, then "--", then a command: it joins them and becomes it.
const joinAndRun = `while [ "$1" != -- ]; do echo 0 >"$1/cgroup.procs" || exit; shift; done; shift; exec "$@"`

// make makes the cgroups and namespaces.
func (n *node) make() error {
	if err := n.cgroups.make(); err != nil {
		return err
	}
	if err := n.hold(); err != nil {
		return err
	}
	// What was not there when the holder took the cgroup for its root is where daemons are.
	pid, err := n.daemons.pid(holder)
	if err != nil {
		return err
	}
	procs := filepath.Join(n.cgroups.v2(), systemCgroup, "cgroup.procs")
	if err := os.WriteFile(procs, []byte(strconv.Itoa(pid)), 0); err != nil {
		return fmt.Errorf("cannot move the holder of the namespaces: %w", err)
	}
	if err := n.enter(n.mount, unix.CLONE_NEWNS, unix.CLONE_NEWNET, unix.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("cannot mount the node's file systems: %w", err)
	}
	if err := n.enter(n.network, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("cannot set up the node's network: %w", err)
	}
	return nil
}

// hold starts the holder in new namespaces and returns when they are there.
func (n *node) hold() error {
	ready, done, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ready.Close()
	args := append([]string{"-c", joinAndRun, "sh"}, n.cgroups.dirs()...)
	args = append(args, "--", "unshare", "--mount", "--net", "--cgroup", "sh", "-c", "echo >&3; exec 3>&-; exec sleep infinity")
	cmd := exec.Command("sh", args...)
	cmd.ExtraFiles = []*os.File{done} // as file 3
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = n.daemons.start(holder, cmd)
	_ = done.Close()
	if err != nil {
		return err
	}
	if _, err := ready.Read(make([]byte, 1)); err != nil {
		return fmt.Errorf("cannot make namespaces: %w\n%s", err, n.daemons.logTail(holder))
	}
	return nil
}

// watch makes everything end with this process, however that comes about: the pipe's other end is closed then.
func (n *node) watch() (io.Closer, error) {
	stdin, owner, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer stdin.Close()
	cmd := exec.Command("sh", "-c", `read -r _; echo 1 >"$1"`, "sh", n.cgroups.killFile())
	cmd.Stdin = stdin
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := n.daemons.start(watcher, cmd); err != nil {
		return nil, errors.Join(err, owner.Close())
	}
	return owner, nil
}

// mount gives the node file systems of its own, where a kubelet would write to those of the machine.
func (n *node) mount() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unpinNamespaces(); err != nil {
		return err
	}
	// A new sysfs shows the new network namespace. The old one goes with all that is mounted in it, or whoever reads the
	// list of mounts would find each cgroup hierarchy twice.
	if err := unix.Unmount("/sys", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("/sys: %w", err)
	}
	if err := unix.Mount("sysfs", "/sys", "sysfs", 0, ""); err != nil {
		return fmt.Errorf("/sys: %w", err)
	}
	if err := n.mountCgroups(); err != nil {
		return err
	}
	for _, m := range []struct{ target, kind string }{
		{"/sys/fs/bpf", "bpf"}, {"/sys/kernel/tracing", "tracefs"}, {"/run", "tmpfs"},
	} {
		if err := unix.Mount(m.kind, m.target, m.kind, 0, ""); err != nil {
			return fmt.Errorf("%s: %w", m.target, err)
		}
	}
	for name, target := range map[string]string{
		"var-lib": "/var/lib", "var-log": "/var/log", "resolv.conf": "/etc/resolv.conf",
		// A kubelet writes to these, which are the machine's, unless they have the value already.
		"overcommit_memory": "/proc/sys/vm/overcommit_memory", "panic": "/proc/sys/kernel/panic", "panic_on_oops": "/proc/sys/kernel/panic_on_oops",
	} {
		if err := unix.Mount(filepath.Join(n.dir, name), target, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("%s: %w", target, err)
		}
	}
	// Volumes must reach the containers that are there already, within the node.
	return unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, "")
}

// writeMounts writes what mount puts in place of the machine's own.
func (n *node) writeMounts() error {
	for _, dir := range []string{"var-lib", "var-log"} {
		if err := os.MkdirAll(filepath.Join(n.dir, dir), 0o755); err != nil {
			return err
		}
	}
	for name, text := range map[string]string{
		"overcommit_memory": "1\n", "panic": "10\n", "panic_on_oops": "1\n", "resolv.conf": "nameserver " + dnsServiceIP + "\n",
	} {
		if err := os.WriteFile(filepath.Join(n.dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// mountCgroups mounts the hierarchies anew, so that the node's own cgroup is what is at their roots.
func (n *node) mountCgroups() error {
	const root = "/sys/fs/cgroup"
	if n.cgroups.all[0].mount != root {
		if err := unix.Mount("tmpfs", root, "tmpfs", 0, "mode=755"); err != nil {
			return fmt.Errorf("%s: %w", root, err)
		}
	}
	for _, h := range n.cgroups.all {
		kind := "cgroup"
		if h.v2 {
			kind = "cgroup2"
		}
		if err := os.MkdirAll(h.mount, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(kind, h.mount, kind, 0, h.options); err != nil {
			return fmt.Errorf("%s %q: %w", h.mount, h.options, err)
		}
	}
	return nil
}

// unpinNamespaces unmounts the files of network namespaces that came along with the machine's mounts: they would be kept
// for as long as the node lives, after others have removed them.
func unpinNamespaces() error {
	f, err := os.Open("/proc/thread-self/mounts")
	if err != nil {
		return err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) > 2 && fields[2] == "nsfs" {
			if err := unix.Unmount(fields[1], unix.MNT_DETACH); err != nil {
				return fmt.Errorf("%s: %w", fields[1], err)
			}
		}
	}
	return nil
}

// network gives the node its address, on one end of a veth pair whose other end nobody uses.
func (n *node) network() error {
	for name, value := range map[string]string{
		"ipv4/ip_forward": "1",
		// Packets between pods pass no router, but must be translated if they are for a Service.
		"bridge/bridge-nf-call-iptables": "1", "bridge/bridge-nf-call-ip6tables": "1",
	} {
		if err := os.WriteFile("/proc/sys/net/"+name, []byte(value), 0); err != nil {
			return err
		}
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "node0"
	veth := netlink.NewVeth(attrs)
	veth.PeerName = "node0-peer"
	if err := netlink.LinkAdd(veth); err != nil {
		return err
	}
	for _, name := range []string{"lo", attrs.Name, veth.PeerName} {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return err
		}
	}
	addr, err := netlink.ParseAddr(NodeIP + "/24")
	if err != nil {
		return err
	}
	if err := netlink.AddrAdd(veth, addr); err != nil {
		return err
	}
	_, everywhere, err := net.ParseCIDR("0.0.0.0/0")
	if err != nil {
		return err
	}
	return netlink.RouteAdd(&netlink.Route{LinkIndex: veth.Attrs().Index, Dst: everywhere, Scope: netlink.SCOPE_LINK})
}

// namespaces are the files in /proc/PID/ns.
var namespaces = map[int]string{unix.CLONE_NEWNS: "mnt", unix.CLONE_NEWNET: "net", unix.CLONE_NEWCGROUP: "cgroup"}

// enter runs f on a thread in the node's namespaces. The thread ends with it.
func (n *node) enter(f func() error, kinds ...int) error {
	pid, err := n.daemons.pid(holder)
	if err != nil {
		return err
	}
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and not unlocked: a thread that cannot go home ends with its goroutine
		result <- func() error {
			// Threads share the current directory, and one that does cannot change its root.
			if err := unix.Unshare(unix.CLONE_FS); err != nil {
				return err
			}
			for _, kind := range kinds {
				ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/%s", pid, namespaces[kind]))
				if err != nil {
					return err
				}
				err = unix.Setns(int(ns.Fd()), kind)
				_ = ns.Close()
				if err != nil {
					return fmt.Errorf("cannot enter the node's %s namespace: %w", namespaces[kind], err)
				}
			}
			return f()
		}()
	}()
	return <-result
}

// dial connects from the node. The address must be an IP address.
func (n *node) dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	err = n.enter(func() (err error) {
		var d net.Dialer
		conn, err = d.DialContext(ctx, network, address)
		return err
	}, unix.CLONE_NEWNET)
	return conn, err
}

// command returns a command line on the node: in its namespaces and in the cgroups of its daemons.
func (n *node) command(ctx context.Context, path string, args ...string) (*exec.Cmd, error) {
	pid, err := n.daemons.pid(holder)
	if err != nil {
		return nil, err
	}
	line := append([]string{"-c", joinAndRun, "sh"}, n.cgroups.joined()...)
	line = append(line, "--", "nsenter", "--target="+strconv.Itoa(pid), "--mount", "--net", "--cgroup", "--", path)
	cmd := exec.CommandContext(ctx, "sh", append(line, args...)...)
	cmd.Env = append(os.Environ(), n.env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	return cmd, nil
}

// networkCommand returns a command line that sees the machine's files and talks to the node's network.
func (n *node) networkCommand(ctx context.Context, path string, args ...string) (*exec.Cmd, error) {
	pid, err := n.daemons.pid(holder)
	if err != nil {
		return nil, err
	}
	return exec.CommandContext(ctx, "nsenter", append([]string{"--target=" + strconv.Itoa(pid), "--net", "--", path}, args...)...), nil
}
