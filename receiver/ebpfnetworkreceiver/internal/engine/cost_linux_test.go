package engine

import (
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/bpf/network"
	"github.com/orb8/orb8/internal/cgroup"
)

// BenchmarkCost is what a packet costs at a socket: the kernel's own measure (bpf_stats) of each program, and of an empty
// one beside it in the same run. Medians of rounds, because the machine's speed drifts.
func BenchmarkCost(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("loading BPF programs needs root")
	}
	stats, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	require.NoError(b, err)
	defer stats.Close()
	mount, err := cgroup.FindMount("")
	require.NoError(b, err)
	for name, load := range map[string]func(testing.TB, int){"udp64": sendUDP, "tcp": sendTCP} {
		b.Run(name, func(b *testing.B) {
			e, err := New(Options{
				RingBufferSize: 1 << 20, FlowTableSize: 100_000, Events: true, SelfTraffic: true, CgroupPath: mount.Path, DNSPorts: [4]uint16{53},
			})
			require.NoError(b, err)
			defer e.Close()
			require.NoError(b, e.AttachCgroup(mount.Path))
			go func() { _ = e.ReadEvents(func(*network.NetworkEvent, Payload) {}) }()
			programs := map[string]*ebpf.Program{"egress": e.objs.CgroupEgress, "ingress": e.objs.CgroupIngress, "empty": attachEmpty(b, mount.Path)}
			costs := map[string][]float64{}
			const rounds = 15
			for range rounds {
				before := runs(b, programs)
				load(b, max(b.N/rounds, 1))
				after := runs(b, programs)
				for p, s := range after {
					costs[p] = append(costs[p], float64(s.Runtime-before[p].Runtime)/float64(s.RunCount-before[p].RunCount))
				}
				require.NoError(b, e.Flip())
				var packets uint64
				_, err := e.Drain(func(_ *network.NetworkFlowKey, f *network.NetworkFlow) { packets += f.Packets })
				require.NoError(b, err)
				ran := after["egress"].RunCount - before["egress"].RunCount + after["ingress"].RunCount - before["ingress"].RunCount
				require.GreaterOrEqual(b, packets, ran, "packets that are not counted cost nothing")
			}
			for p, c := range costs {
				slices.Sort(c)
				b.ReportMetric(c[len(c)/2], p+"-ns/packet")
			}
		})
	}
}

func runs(b *testing.B, programs map[string]*ebpf.Program) map[string]*ebpf.ProgramStats {
	b.Helper()
	all := map[string]*ebpf.ProgramStats{}
	for name, p := range programs {
		s, err := p.Stats()
		require.NoError(b, err)
		all[name] = s
	}
	return all
}

func attachEmpty(b *testing.B, path string) *ebpf.Program {
	b.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.CGroupSKB, AttachType: ebpf.AttachCGroupInetEgress, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()},
	})
	require.NoError(b, err)
	b.Cleanup(func() { p.Close() })
	l, err := link.AttachCgroup(link.CgroupOptions{Path: path, Attach: ebpf.AttachCGroupInetEgress, Program: p})
	require.NoError(b, err)
	b.Cleanup(func() { l.Close() })
	return p
}

func sendUDP(t testing.TB, packets int) {
	t.Helper()
	server, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	defer server.Close()
	client, err := net.DialUDP("udp4", nil, server.LocalAddr().(*net.UDPAddr))
	require.NoError(t, err)
	defer client.Close()
	payload := make([]byte, 64)
	for range packets {
		_, err := client.Write(payload)
		require.NoError(t, err)
	}
}

func sendTCP(t testing.TB, packets int) {
	t.Helper()
	sendTCPTo(t, netip.MustParseAddr("127.0.0.1"), packets)
}

// sendTCPTo is sendTCP to an address of this host.
func sendTCPTo(t testing.TB, to netip.Addr, packets int) {
	t.Helper()
	l, err := net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(netip.AddrPortFrom(to, 0)))
	require.NoError(t, err)
	defer l.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		if c, err := l.Accept(); err == nil {
			_, _ = io.Copy(io.Discard, c)
			c.Close()
		}
	}()
	c, err := net.Dial("tcp4", l.Addr().String())
	require.NoError(t, err)
	require.NoError(t, c.SetDeadline(time.Now().Add(time.Minute)))
	payload := make([]byte, 32<<10)
	for range packets {
		_, err := c.Write(payload)
		require.NoError(t, err)
	}
	require.NoError(t, c.Close())
	<-done
}
