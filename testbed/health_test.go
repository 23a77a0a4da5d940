//go:build linux

package testbed

import (
	"encoding/json"
	"fmt"
	"math"
	"net"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/orb8/orb8/testbed/internal/collector"
	"github.com/orb8/orb8/testbed/internal/lab"
	"github.com/orb8/orb8/testbed/internal/traffic"
)

// healthOf is what `orb8 flows -o json` says of TCP.
type healthOf struct {
	Direction   string             `json:"direction"`
	Source      collector.Endpoint `json:"source"`
	Retransmits uint64             `json:"retransmits"`
	SRTT        float64            `json:"srtt"`
	MinRTT      float64            `json:"minRtt"`
	Handshake   float64            `json:"handshake"`
	Outcome     string             `json:"outcome"`
}

func healthFlows(t *testing.T, c *collector.Collector, args ...string) (rows []healthOf) {
	t.Helper()
	stdout, stderr, code := c.CLI(append([]string{"flows", "-o", "json", "--limit", "0"}, args...)...)
	require.Zero(t, code, stderr)
	require.NoError(t, json.Unmarshal([]byte(stdout), &rows), stdout)
	return rows
}

// The sockets' own count (TCP_INFO) is the source that is not ours.
func TestRetransmitsAreTheSocketsOwn(t *testing.T) {
	for _, mode := range attachModes {
		t.Run(mode, func(t *testing.T) {
			l := lab.New(t, lab.Options{})
			c := collector.Start(t, collector.Options{Node: l.Agent, Set: fast(), Overlay: watchLab(l, mode)})
			loseOneIn(t, l, 50, math.MaxInt32)
			sent, received := traffic.Exchange(t, l.Client, l.Server, traffic.Load{Network: "tcp4", Flows: 3, Writes: 300, WriteSize: 4000, Reply: 100})
			require.NotZero(t, sent.Retransmits, "nothing was lost on the way")

			want := map[string]uint64{l.Client.Cgroup(): sent.Retransmits, l.Server.Cgroup(): received.Retransmits}
			var got map[string]uint64
			collector.Await(t, "the sockets' retransmits", func() bool {
				got = map[string]uint64{l.Client.Cgroup(): 0, l.Server.Cgroup(): 0}
				for _, f := range healthFlows(t, c, "--direction", "egress", "--protocol", "tcp") {
					if _, ours := got[f.Source.Cgroup]; ours {
						got[f.Source.Cgroup] += f.Retransmits
					}
				}
				return assert.ObjectsAreEqual(want, got)
			}, func() any { return fmt.Sprintf("want %v\ngot  %v", want, got) })

			for _, f := range healthFlows(t, c, "--direction", "egress", "--protocol", "tcp") {
				if f.Source.Cgroup == l.Client.Cgroup() {
					assert.Positive(t, f.SRTT)
					assert.Positive(t, f.MinRTT)
					assert.LessOrEqual(t, f.MinRTT, f.SRTT*1.5, "the least is not above the mean")
					assert.Positive(t, f.Handshake)
					assert.Equal(t, "closed", f.Outcome)
				}
			}
		})
	}
}

// loseOneIn drops packets at random as they arrive at the host from the client, until most were dropped.
func loseOneIn(t *testing.T, l *lab.Lab, n, most int32) {
	t.Helper()
	dropped, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	require.NoError(t, err)
	t.Cleanup(func() { dropped.Close() })
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "GPL", Instructions: asm.Instructions{
		asm.FnGetPrandomU32.Call(),
		asm.Mod.Imm32(asm.R0, n),
		asm.JNE.Imm32(asm.R0, 0, "pass"),
		asm.StoreImm(asm.RFP, -4, 0, asm.Word),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.LoadMapPtr(asm.R1, dropped.FD()),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "pass"),
		asm.LoadMem(asm.R1, asm.R0, 0, asm.DWord),
		asm.JGE.Imm(asm.R1, most, "pass"),
		asm.Add.Imm(asm.R1, 1),
		asm.StoreMem(asm.R0, 0, asm.R1, asm.DWord),
		asm.Mov.Imm(asm.R0, 2), // TCX_DROP
		asm.Return(),
		asm.Mov.Imm(asm.R0, -1).WithSymbol("pass"), // TCX_NEXT
		asm.Return(),
	}})
	require.NoError(t, err)
	t.Cleanup(func() { prog.Close() })
	require.NoError(t, l.Host.Do(func() error {
		device, err := net.InterfaceByName(l.Client.Interface())
		if err != nil {
			return err
		}
		hook, err := link.AttachTCX(link.TCXOptions{Interface: device.Index, Program: prog, Attach: ebpf.AttachTCXIngress})
		if err == nil {
			t.Cleanup(func() { hook.Close() })
		}
		return err
	}))
}

func TestAttemptsThatFail(t *testing.T) {
	l := lab.New(t, lab.Options{})
	c := collector.Start(t, collector.Options{Node: l.Agent, Set: map[string]string{
		"receivers.ebpf_network.interval": "200ms", "receivers.ebpf_network.idle_timeout": "4s",
	}})
	// A port that nobody listens on, and an address that nobody answers for.
	require.NoError(t, l.Client.Do(func() error {
		_, err := net.Dial("tcp4", l.Server.IPv4.String()+":9")
		assert.ErrorContains(t, err, "refused")
		return nil
	}))
	silent := traffic.Unanswered(t, l.Client, l.Server)

	outcomes := map[string]string{}
	collector.Await(t, "refused, and timed out", func() bool {
		for _, f := range c.Flows("--direction", "egress", "--protocol", "tcp") {
			if to := fmt.Sprintf("%s:%d", f.Destination.Address, f.Destination.Port); f.Outcome != "" {
				outcomes[to] = f.Outcome
			}
		}
		return outcomes[l.Server.IPv4.String()+":9"] == "refused" && outcomes[silent] == "timeout"
	}, func() any { return outcomes })
	// It is the kernel that refuses, and not a process of the server.
	refusals := 0
	for _, f := range c.Flows("--direction", "egress", "--ip", l.Server.IPv4.String()) {
		if f.Source.Port == 9 {
			assert.Equal(t, "/", f.Source.Cgroup, "%+v", f)
			refusals++
		}
	}
	assert.Equal(t, 1, refusals)
}
