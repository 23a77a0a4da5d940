//go:build linux

// Package traffic sends payloads of known size from one node of a lab to another.
//
// Sender and receiver are processes of their own, because a cgroup holds processes: the test binary starts itself again,
// and RunIfChild in its TestMain makes it play the part.
package traffic

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/testbed/internal/lab"
)

// Load is what a client sends to a server.
type Load struct {
	// Network is tcp4, tcp6, udp4 or udp6, for Echo icmp4 or icmp6.
	Network string
	// Flows is how many connections (TCP) or source ports (UDP) send, one after the other; 0 means 1.
	Flows int
	// Writes of WriteSize bytes each are sent by every flow. A UDP write is a datagram.
	Writes, WriteSize int
	// Reply is the size of the answer in bytes: to a connection when the client has sent everything, or to every
	// datagram. 0 means no answer.
	Reply int
}

// Report is what one side sent and received: payload bytes, summed over all flows.
type Report struct {
	// Local and Remote are the socket addresses of the first flow.
	Local, Remote netip.AddrPort
	BytesSent     uint64
	BytesReceived uint64
	// DatagramsReceived is set for UDP and ICMP, DatagramsSent by Storm and Echo.
	DatagramsReceived, DatagramsSent uint64
	// SegmentsSent and SegmentsReceived are what the kernel counted for the TCP connections until both ends had closed,
	// pure acknowledgements and retransmits included; Retransmits is how many of those sent were sent again.
	SegmentsSent, SegmentsReceived, Retransmits uint64
}

// timeout bounds everything a child does, so that a lost datagram ends in a report that says so and not in a hang.
const timeout = 60 * time.Second

// Exchange sends the load from client to server and returns what each of them saw, after every connection is closed.
func Exchange(t testing.TB, client, server *lab.Node, load Load) (sent, received Report) {
	t.Helper()
	return ExchangeVia(t, client, server, load, func(listening netip.AddrPort) netip.AddrPort { return listening })
}

// ExchangeVia is Exchange for a client that reaches the server by another address: via is told where the server listens,
// and returns where the client is to connect to.
func ExchangeVia(t testing.TB, client, server *lab.Node, load Load, via func(listening netip.AddrPort) netip.AddrPort) (sent, received Report) {
	t.Helper()
	ip := server.IPv4
	if strings.HasSuffix(load.Network, "6") {
		ip = server.IPv6
	}
	load.Flows = max(load.Flows, 1)
	receiver := start(t, server, part{Load: load, Serve: true, Address: netip.AddrPortFrom(ip, 0)})
	var listening netip.AddrPort
	receiver.read(&listening)
	sender := start(t, client, part{Load: load, Address: via(listening)})
	sender.read(&sent)
	receiver.read(&received)
	sender.wait()
	receiver.wait()
	return sent, received
}

// part is what a child is told to do, as JSON in the environment.
type part struct {
	Load
	Serve   bool
	Address netip.AddrPort
	Storm   *StormLoad
}

const partVariable = "ORB8_TESTBED_TRAFFIC"

// RunIfChild plays the part that Exchange gave to this process and ends it. It returns at once in any other process.
// Call it first in TestMain.
func RunIfChild() {
	text, ok := os.LookupEnv(partVariable)
	if !ok {
		return
	}
	if err := play(text, json.NewEncoder(os.Stdout)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func play(text string, out *json.Encoder) error {
	var p part
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		return fmt.Errorf("%s: %w", partVariable, err)
	}
	ready := func(addr netip.AddrPort) error { return out.Encode(addr) }
	var report Report
	var err error
	switch tcp := strings.HasPrefix(p.Network, "tcp"); {
	case p.Storm != nil:
		report, err = storm(*p.Storm)
	case strings.HasPrefix(p.Network, "icmp"):
		report, err = echo(p)
	case tcp && p.Serve:
		report, err = serveTCP(p, ready)
	case tcp:
		report, err = sendTCP(p)
	case p.Serve:
		report, err = serveUDP(p, ready)
	default:
		report, err = sendUDP(p)
	}
	if err != nil {
		return err
	}
	return out.Encode(report)
}

// child is a process that plays a part.
type child struct {
	t      testing.TB
	name   string
	cmd    *exec.Cmd
	stdout *bufio.Reader
	stderr strings.Builder
}

func start(t testing.TB, node *lab.Node, p part) *child {
	t.Helper()
	text, err := json.Marshal(p)
	require.NoError(t, err)
	c := &child{t: t, name: fmt.Sprintf("%s (%s)", node.Name, text), cmd: exec.Command("/proc/self/exe")}
	c.cmd.Env = append(os.Environ(), partVariable+"="+string(text))
	c.cmd.Stderr = &c.stderr
	pipe, err := c.cmd.StdoutPipe()
	require.NoError(t, err)
	c.stdout = bufio.NewReader(pipe)
	require.NoError(t, onOneCPU(func() error { return node.Start(c.cmd) }))
	t.Cleanup(func() {
		if c.cmd.ProcessState == nil {
			_ = c.cmd.Process.Kill()
			_ = c.cmd.Wait()
		}
	})
	return c
}

// onOneCPU runs f, and every child that it starts, on one CPU. A packet through a veth pair is queued on the CPU
// that sends it, so a sender that moves between CPUs reorders its own segments, and TCP answers by retransmitting.
func onOneCPU(f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before, first unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return err
	}
	cpu := 0
	for !before.IsSet(cpu) {
		cpu++
	}
	first.Set(cpu)
	if err := unix.SchedSetaffinity(0, &first); err != nil {
		return fmt.Errorf("cannot run on CPU %d alone: %w", cpu, err)
	}
	return errors.Join(f(), unix.SchedSetaffinity(0, &before))
}

// read decodes the next line that the child says.
func (c *child) read(v any) {
	c.t.Helper()
	line, err := c.stdout.ReadBytes('\n')
	if err != nil {
		_, _ = io.Copy(io.Discard, c.stdout)
		_ = c.cmd.Wait()
		require.NoError(c.t, err, "%s: %s", c.name, c.stderr.String())
	}
	require.NoError(c.t, json.Unmarshal(line, v), "%s: %s", c.name, line)
}

func (c *child) wait() {
	c.t.Helper()
	require.NoError(c.t, c.cmd.Wait(), "%s: %s", c.name, c.stderr.String())
}
