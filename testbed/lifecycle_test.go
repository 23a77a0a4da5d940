//go:build linux

package testbed

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"

	"github.com/orb8/orb8/testbed/internal/collector"
	"github.com/orb8/orb8/testbed/internal/lab"
	"github.com/orb8/orb8/testbed/internal/traffic"
)

var attachModes = []string{"cgroup", "tc"}

func TestSIGTERMLeavesNothingInTheKernel(t *testing.T) {
	for _, mode := range attachModes {
		t.Run(mode, func(t *testing.T) {
			l := lab.New(t, lab.Options{})
			before := qdiscs(t, l)
			c := startInMode(t, l, mode)
			held := objectsOf(t, c.PID())
			require.NotEmpty(t, held.programs)
			require.NotEmpty(t, held.maps)
			require.NotEmpty(t, held.links)
			c.Stop()
			held.requireGone(t)
			assert.ElementsMatch(t, before, qdiscs(t, l))
		})
	}
}

func TestRestartAfterSIGKILL(t *testing.T) {
	for _, mode := range attachModes {
		t.Run(mode, func(t *testing.T) {
			l := lab.New(t, lab.Options{})
			killed := startInMode(t, l, mode)
			held := objectsOf(t, killed.PID())
			killed.Kill()
			held.requireGone(t)

			c := startInMode(t, l, mode)
			sent, _ := traffic.Exchange(t, l.Client, l.Server, traffic.Load{Network: "udp4", Writes: 10, WriteSize: 100})
			c.AwaitFlows("every packet counted once", func(flows []collector.Flow) bool {
				var packets uint64
				for _, f := range flows {
					if f.Direction == "egress" && f.Source.Cgroup == l.Client.Cgroup() {
						packets += f.Packets
					}
				}
				return packets == 10
			}, "--port", fmt.Sprint(sent.Remote.Port()))
		})
	}
}

func startInMode(t *testing.T, l *lab.Lab, mode string) *collector.Collector {
	t.Helper()
	return collector.Start(t, collector.Options{
		Node: l.Agent,
		Env:  []string{"ORB8_ATTACH_MODE=" + mode},
		Set:  fast(),
	})
}

// objects are the ids of what a process keeps in the kernel.
type objects struct {
	programs []ebpf.ProgramID
	maps     []ebpf.MapID
	links    []link.ID
}

// objectsOf finds the BPF objects behind a process's file descriptors: other processes of the machine have theirs.
func objectsOf(t *testing.T, pid int) (o objects) {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", pid))
	require.NoError(t, err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) {
			continue // closed meanwhile
		}
		require.NoError(t, err)
		var id uint32
		for line := range strings.Lines(string(text)) {
			if n, _ := fmt.Sscanf(line, "prog_id: %d", &id); n == 1 {
				o.programs = append(o.programs, ebpf.ProgramID(id))
			}
			if n, _ := fmt.Sscanf(line, "map_id: %d", &id); n == 1 {
				o.maps = append(o.maps, ebpf.MapID(id))
			}
			if n, _ := fmt.Sscanf(line, "link_id: %d", &id); n == 1 {
				o.links = append(o.links, link.ID(id))
			}
		}
	}
	return o
}

// requireGone waits until the kernel has freed the objects, which it does a moment after they are released.
func (o objects) requireGone(t *testing.T) {
	t.Helper()
	var left []string
	gone := func() bool {
		left = nil
		for _, id := range o.programs {
			if p, err := ebpf.NewProgramFromID(id); err == nil {
				left = append(left, p.String())
				p.Close()
			}
		}
		for _, id := range o.maps {
			if m, err := ebpf.NewMapFromID(id); err == nil {
				left = append(left, m.String())
				m.Close()
			}
		}
		for _, id := range o.links {
			if l, err := link.NewFromID(id); err == nil {
				left = append(left, fmt.Sprintf("link %d", id))
				l.Close()
			}
		}
		return len(left) == 0
	}
	if !assert.Eventually(t, gone, 10*time.Second, 50*time.Millisecond) {
		require.Empty(t, left, "left in the kernel")
	}
}

// qdiscs lists the queueing disciplines of the lab's host as "DEVICE KIND".
func qdiscs(t *testing.T, l *lab.Lab) []string {
	t.Helper()
	var names []string
	require.NoError(t, l.Host.Do(func() error {
		links, err := netlink.LinkList()
		if err != nil {
			return err
		}
		for _, device := range links {
			list, err := netlink.QdiscList(device)
			if err != nil {
				return err
			}
			for _, q := range list {
				names = append(names, device.Attrs().Name+" "+q.Type())
			}
		}
		return nil
	}))
	slices.Sort(names)
	return slices.Compact(names)
}
