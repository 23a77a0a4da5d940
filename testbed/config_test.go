//go:build linux

package testbed

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/orb8/orb8/internal/testutil"
	"github.com/orb8/orb8/testbed/internal/collector"
)

func TestShippedConfigsAreValid(t *testing.T) {
	configs, err := filepath.Glob(filepath.Join(filepath.Dir(collector.Standalone()), "*.yaml"))
	require.NoError(t, err)
	require.NotEmpty(t, configs)
	for _, config := range configs {
		t.Run(filepath.Base(config), func(t *testing.T) {
			validate := exec.Command(collector.Binary(t, "orb8-collector"), "validate", "--config", config)
			validate.Env = append(os.Environ(), "NODE_NAME=node1") // an agent must be told which pods are its own
			out, err := validate.CombinedOutput()
			assert.NoError(t, err, "%s", out)
		})
	}
}

func TestBadConfigEndsInOneClearLine(t *testing.T) {
	testutil.Require(t, "bpf", os.Geteuid() == 0, "starting the collector needs root")
	setpriv, err := exec.LookPath("setpriv")
	testutil.Require(t, "bpf", err == nil, "setpriv (Debian package util-linux) is not installed")
	taken, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	endpoint := taken.Addr().String()

	tests := map[string]struct {
		options collector.Options
		says    []string
	}{
		"ring buffer size": {
			options: collector.Options{Env: []string{"ORB8_RING_BUFFER_SIZE=1000"}},
			says:    []string{"ebpf_network", "ring_buffer_size", "1000", "power of two", "4096", "33554432"},
		},
		"attach mode": {
			options: collector.Options{Env: []string{"ORB8_ATTACH_MODE=sideways"}},
			says:    []string{"ebpf_network", "attach", "mode", "sideways", "auto", "cgroup", "tc"},
		},
		"query port in use": {
			options: collector.Options{Env: []string{"ORB8_QUERY_ENDPOINT=" + endpoint}},
			says:    []string{"orb8_query", "endpoint", endpoint, "in use", "set another endpoint"},
		},
		"prometheus port in use": {
			options: collector.Options{Env: []string{"ORB8_PROMETHEUS_ENDPOINT=" + endpoint}},
			says:    []string{"prometheus", endpoint, "address already in use"},
		},
		"no capabilities": {
			options: collector.Options{Wrapper: []string{setpriv, "--inh-caps=-all", "--bounding-set=-all"}},
			says:    []string{"ebpf_network", "CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN"},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := collector.Launch(t, tt.options)
			assert.Positive(t, c.Wait(), "exit code")
			lines := errorLines(c.Log())
			require.Len(t, lines, 1, "lines that start with Error:, in\n%s", c.Log())
			for _, word := range tt.says {
				assert.Contains(t, lines[0], word)
			}
		})
	}
}

// errorLines returns the lines that start with "Error:", which is what a collector that cannot run says last.
func errorLines(log string) []string {
	var lines []string
	for line := range strings.Lines(log) {
		if strings.HasPrefix(line, "Error:") {
			lines = append(lines, line)
		}
	}
	return lines
}
