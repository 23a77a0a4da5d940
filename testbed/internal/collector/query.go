//go:build linux

package collector

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Flow is a row of `orb8 flows -o json`, as its documentation promises it to users.
type Flow struct {
	Time         time.Time `json:"time"`
	Start        time.Time `json:"start"`
	End          time.Time `json:"end"`
	Node         string    `json:"node"`
	Interfaces   []string  `json:"interfaces"`
	Direction    string    `json:"direction"`
	Transport    string    `json:"transport"`
	Source       Endpoint  `json:"source"`
	Destination  Endpoint  `json:"destination"`
	Bytes        uint64    `json:"bytes"`
	Packets      uint64    `json:"packets"`
	Connections  uint64    `json:"connections"`
	ICMPType     *uint32   `json:"icmpType"`
	ConnectionID string    `json:"connectionId"`
	Ended        bool      `json:"ended"`
	Lost         uint64    `json:"lost"`
	Outcome      string    `json:"outcome"`
	Initiator    string    `json:"initiator"`
	SRTT         float64   `json:"srtt"`
	Handshake    float64   `json:"handshake"`
	Backend      *Endpoint `json:"backend"`
	Origin       *Endpoint `json:"origin"`
	OtherEnd     *OtherEnd `json:"otherEnd"`
}

// OtherEnd is what the other end counted of a Flow.
type OtherEnd struct {
	Node    string `json:"node"`
	Bytes   uint64 `json:"bytes"`
	Packets uint64 `json:"packets"`
}

// Endpoint is one end of a Flow.
type Endpoint struct {
	Address     string `json:"address"`
	Port        uint16 `json:"port"`
	Container   string `json:"container"`
	ContainerID string `json:"containerId"`
	PodUID      string `json:"podUid"`
	Pod         string `json:"pod"`
	Namespace   string `json:"namespace"`
	Cgroup      string `json:"cgroup"`
	Process     string `json:"process"`
	Name        string `json:"name"`
}

// Lookup is a row of `orb8 dns -o json`.
type Lookup struct {
	Time       time.Time `json:"time"`
	Direction  string    `json:"direction"`
	Transport  string    `json:"transport"`
	Client     Endpoint  `json:"client"`
	Server     Endpoint  `json:"server"`
	Name       string    `json:"name"`
	Type       string    `json:"type"`
	RCode      string    `json:"rcode"`
	Latency    float64   `json:"latency"`
	Queries    uint64    `json:"queries"`
	Answers    []Answer  `json:"answers"`
	Truncated  bool      `json:"truncated"`
	Incomplete bool      `json:"incomplete"`
}

// Syscall is a row of `orb8 syscalls -o json`.
type Syscall struct {
	Node      string `json:"node"`
	Container string `json:"container"`
	Cgroup    string `json:"cgroup"`
	Pod       string `json:"pod"`
	Namespace string `json:"namespace"`
	Syscall   string `json:"syscall"`
	ABI       string `json:"abi"`
	Calls     uint64 `json:"calls"`
	Errors    uint64 `json:"errors"`
	Lost      uint64 `json:"lost"`
}

// Anomaly is a row of `orb8 anomalies -o json`.
type Anomaly struct {
	Cgroup   string `json:"cgroup"`
	Workload string `json:"workload"`
	Rule     string `json:"rule"`
	Severity string `json:"severity"`
	Syscall  string `json:"syscall"`
	Message  string `json:"message"`
}

// Answer is a resource record of a Lookup.
type Answer struct {
	Name string `json:"name"`
	Type string `json:"type"`
	TTL  uint32 `json:"ttl"`
	Data string `json:"data"`
}

// Local returns the end that is on the node.
func (f Flow) Local() Endpoint {
	if f.Direction == "ingress" {
		return f.Destination
	}
	return f.Source
}

// CLI runs the orb8 CLI against the collector and returns what it wrote and its exit code.
func (c *Collector) CLI(args ...string) (stdout, stderr string, code int) {
	c.t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.Command(Binary(c.t, "orb8"), args...)
	cmd.Env = append(os.Environ(), "ORB8_AGENT="+c.Query)
	cmd.Stdout, cmd.Stderr = &out, &errs
	require.NoError(c.t, startIn(c.node, cmd))
	_ = cmd.Wait() // the exit code stays in ProcessState
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// Flows returns the rows of `orb8 flows -o json --limit 0` with further arguments.
func (c *Collector) Flows(args ...string) []Flow { return rows[Flow](c, "flows", args) }

// Lookups returns the rows of `orb8 dns -o json --limit 0` with further arguments.
func (c *Collector) Lookups(args ...string) []Lookup { return rows[Lookup](c, "dns", args) }

// Syscalls returns the rows of `orb8 syscalls -o json --limit 0` with further arguments.
func (c *Collector) Syscalls(args ...string) []Syscall { return rows[Syscall](c, "syscalls", args) }

// Anomalies returns the rows of `orb8 anomalies -o json --limit 0` with further arguments.
func (c *Collector) Anomalies(args ...string) []Anomaly { return rows[Anomaly](c, "anomalies", args) }

func rows[T any](c *Collector, command string, args []string) []T {
	c.t.Helper()
	stdout, stderr, code := c.CLI(append([]string{command, "-o", "json", "--limit", "0"}, args...)...)
	require.Zero(c.t, code, stderr)
	var all []T
	require.NoError(c.t, json.Unmarshal([]byte(stdout), &all), stdout)
	return all
}

// AwaitFlows asks for the flows until they satisfy the condition, and returns them. It fails the test, with what says,
// when that takes too long.
func (c *Collector) AwaitFlows(what string, done func([]Flow) bool, args ...string) []Flow {
	c.t.Helper()
	var flows []Flow
	Await(c.t, what, func() bool {
		flows = c.Flows(args...)
		return done(flows)
	}, func() any { return flows })
	return flows
}

// Get returns the body of http://ADDRESS/PATH, fetched where the collector runs.
func (c *Collector) Get(address, path string) string {
	c.t.Helper()
	transport := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (conn net.Conn, err error) {
		err = in(c.node, func() error {
			var d net.Dialer
			conn, err = d.DialContext(ctx, network, addr)
			return err
		})
		return conn, err
	}}
	defer transport.CloseIdleConnections()
	client := http.Client{Transport: transport, Timeout: timeout}
	resp, err := client.Get("http://" + address + path)
	require.NoError(c.t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(c.t, err)
	require.Equal(c.t, http.StatusOK, resp.StatusCode, "%s", body)
	return string(body)
}

// Await waits until done returns true, and fails the test with the state when that takes too long.
func Await(t testing.TB, what string, done func() bool, state func() any) {
	t.Helper()
	for deadline := time.Now().Add(timeout); !done(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			require.Fail(t, "after "+timeout.String()+" still not: "+what, "%+v", state())
		}
	}
}
