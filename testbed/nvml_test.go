//go:build linux

package testbed

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/orb8/orb8/internal/fakenvml"
	"github.com/orb8/orb8/internal/testutil"
	"github.com/orb8/orb8/testbed/internal/collector"
)

// The collector as it is built and configured runs with NVIDIA's library, without it, and with its driver gone and back: functions of a
// library that is not there would end a program that binds them at its start.
func TestTheCollectorReadsNVML(t *testing.T) {
	testutil.Require(t, "bpf", os.Geteuid() == 0, "starting the collector needs root")
	fakenvml.RequireCompiler(t)
	library, err := fakenvml.Build(t.TempDir())
	require.NoError(t, err)
	// A process that is there: this one.
	gpus := fakenvml.Scenario("h100") + fmt.Sprintf("process c %d %d 4294967295 4294967295\n", os.Getpid(), 3<<30)
	file := fakenvml.New(t, gpus)
	c := collector.Start(t, collector.Options{
		Set: map[string]string{"receivers.gpu.collection_interval": "1s", "receivers.gpu.nvml.library_paths": library},
		Env: []string{fakenvml.Env + "=" + file.Path},
	})
	rows := func() (all []gpuRow) {
		stdout, _, _ := c.CLI("gpu", "-o", "json")
		_ = json.Unmarshal([]byte(stdout), &all)
		return all
	}
	collector.Await(t, "orb8 gpu has the card", func() bool { return len(rows()) >= 1 }, func() any { return c.Log() })
	card := rows()[0]
	assert.Equal(t, "GPU-b1000000-0000-0000-0000-000000000000", card.UUID)
	assert.InDelta(t, 698.123, *card.Power, 1e-9)
	collector.Await(t, "the process's cgroup has its memory", func() bool {
		return strings.Contains(c.Get(c.Prometheus, "/metrics"), "gpu_process_memory_usage_bytes{")
	}, func() any { return c.Get(c.Prometheus, "/metrics") })

	status := func() string {
		stdout, _, _ := c.CLI("status")
		return stdout
	}
	collector.Await(t, "orb8 status has the card and its source", func() bool {
		return strings.Contains(status(), "gpus         1 NVIDIA H100 80GB HBM3\n") && strings.Contains(status(), "gpu source   nvml up, ")
	}, func() any { return status() })

	file.Append("event 0 8 79 4294967295 4294967295\n")
	failures := func() string {
		stdout, _, _ := c.CLI("gpu", "--errors")
		return stdout
	}
	collector.Await(t, "orb8 gpu --errors has it afterwards", func() bool { return strings.Contains(failures(), "XID 79") }, func() any { return failures() })

	file.Set("init 9\n")
	collector.Await(t, "orb8 status says that the driver is gone", func() bool {
		return strings.Contains(status(), "gpus         none that a source sees\n") && strings.Contains(status(), "gpu source   nvml absent: ")
	}, func() any { return status() })
	collector.Await(t, "the log says that the driver is gone", func() bool { return strings.Contains(c.Log(), "Driver Not Loaded") }, func() any { return c.Log() })
	file.Set(gpus)
	back := func() bool { return strings.Count(c.Log(), `GPUs are watched`) >= 2 }
	collector.Await(t, "it is back", back, func() any { return c.Log() })
	assert.NotContains(t, c.Log(), "panic")
}

func TestTheCollectorWithoutNVML(t *testing.T) {
	testutil.Require(t, "bpf", os.Geteuid() == 0, "starting the collector needs root")
	missing := filepath.Join(t.TempDir(), fakenvml.Name)
	c := collector.Start(t, collector.Options{
		Set: map[string]string{"receivers.gpu.collection_interval": "1s", "receivers.gpu.nvml.library_paths": missing},
	})
	const says = "no libnvidia-ml.so.1 in 1 places"
	collector.Await(t, "the log says what is missing", func() bool { return strings.Contains(c.Log(), says) }, func() any { return c.Log() })
	collector.Await(t, "it goes on", func() bool {
		return strings.Contains(c.Get(c.Telemetry, "/metrics"), `orb8_gpu_source_state="down"`)
	}, func() any { return c.Get(c.Telemetry, "/metrics") })
	assert.Equal(t, 1, strings.Count(c.Log(), says), "once")
	explained := func() string {
		_, stderr, _ := c.CLI("gpu")
		return stderr
	}
	collector.Await(t, "orb8 gpu says why there is none", func() bool {
		return strings.Contains(explained(), "what the nodes' gpu receivers say of their sources:") && strings.Contains(explained(), ": nvml absent: ") &&
			strings.Contains(explained(), says)
	}, func() any { return explained() })
}
