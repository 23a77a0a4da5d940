//go:build linux

// Package nameserver answers DNS queries in one node of a lab and asks them in another, with messages that the test knows to
// the last record.
//
// Both are processes of their own, because a cgroup holds processes: the test binary starts itself again, and RunIfChild in
// its TestMain makes it play the part.
package nameserver

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/orb8/orb8/testbed/internal/lab"
)

const (
	// Port is where the server answers, UDP and TCP.
	Port = 53
	// WebPort is where the server takes connections, which say nothing.
	WebPort = 8080
	// Delay is how long the server thinks before it answers.
	Delay = 20 * time.Millisecond
)

// The server's names. Any other does not exist (NXDOMAIN).
const (
	// Web is an alias (TTL 300) of Host.
	Web = "www.lab.test"
	// Host has the server's address (TTL 5).
	Host = "host.lab.test"
	// Big has a text that fits TCP only: the answer by UDP is empty and truncated.
	Big = "big.lab.test"
	// Silence is never answered.
	Silence = "silence.lab.test"
)

// BigText is the text of Big.
func BigText() string { return strings.Repeat("x", 250) }

// Question is what a client asks.
type Question struct {
	// Network is udp4 or tcp4.
	Network string
	Name    string
	// Type is the number of the record type: 1 is A.
	Type uint16
	// Connect makes the client connect to WebPort of the first address of the answer, from where it asked.
	Connect bool
}

// timeout bounds everything a child waits for.
const timeout = 30 * time.Second

// Start starts the server in a node, and stops it when the test ends.
func Start(t testing.TB, node *lab.Node) {
	t.Helper()
	c := start(t, node, part{Serve: true, Server: node.IPv4})
	t.Cleanup(func() {
		_ = c.cmd.Process.Kill()
		_ = c.cmd.Wait()
	})
	c.await()
}

// Ask asks the server one question after the other, each from a socket of its own, from one process in the node. It returns
// when all are answered; Silence is asked and not waited for.
func Ask(t testing.TB, node, server *lab.Node, questions ...Question) {
	t.Helper()
	c := start(t, node, part{Server: server.IPv4, Questions: questions})
	c.await()
	require.NoError(t, c.cmd.Wait(), c.stderr.String())
}

// part is what a child is told to do, as JSON in the environment.
type part struct {
	Serve     bool
	Server    netip.Addr
	Questions []Question
}

const partVariable = "ORB8_TESTBED_NAMESERVER"

// RunIfChild plays the part that this process was started for, and ends it. It returns at once in any other process. Call it
// first in TestMain.
func RunIfChild() {
	text, ok := os.LookupEnv(partVariable)
	if !ok {
		return
	}
	var p part
	err := json.Unmarshal([]byte(text), &p)
	if err == nil && p.Serve {
		err = serve(p.Server, ready)
	} else if err == nil {
		if err = ask(p.Server, p.Questions); err == nil {
			ready()
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// ready tells the parent that the server listens, or that the client is done.
func ready() { fmt.Println("ready") }

type child struct {
	t      testing.TB
	cmd    *exec.Cmd
	stdout *bufio.Reader
	stderr strings.Builder
}

func start(t testing.TB, node *lab.Node, p part) *child {
	t.Helper()
	text, err := json.Marshal(p)
	require.NoError(t, err)
	c := &child{t: t, cmd: exec.Command("/proc/self/exe")}
	c.cmd.Env = append(os.Environ(), partVariable+"="+string(text))
	c.cmd.Stderr = &c.stderr
	pipe, err := c.cmd.StdoutPipe()
	require.NoError(t, err)
	c.stdout = bufio.NewReader(pipe)
	require.NoError(t, node.Start(c.cmd))
	return c
}

// await waits until the child is ready, or has said why it is not.
func (c *child) await() {
	c.t.Helper()
	if _, err := c.stdout.ReadString('\n'); err != nil {
		_, _ = io.Copy(io.Discard, c.stdout)
		_ = c.cmd.Wait()
		require.NoError(c.t, err, c.stderr.String())
	}
}
