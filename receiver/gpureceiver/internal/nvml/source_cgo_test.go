//go:build linux && cgo

package nvml

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/orb8/orb8/internal/fakenvml"
)

// oldDriver is set in a process whose library is that of an old driver.
const oldDriver = "ORB8_TEST_OLD_DRIVER"

var update = flag.Bool("update", false, "write the golden files anew")

// newSource returns one that loads the fake library with the GPUs.
func newSource(t testing.TB, hold Hold, gpus string, onEvent func(Event)) (*Source, *fakenvml.GPUs) {
	t.Helper()
	fakenvml.RequireCompiler(t)
	g := fakenvml.New(t, gpus)
	s := New(Options{LibraryPaths: []string{"/does/not/exist/libnvidia-ml.so.1", fake}, Hold: hold, OnEvent: onEvent})
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s, g
}

// golden holds a snapshot against the file testdata/NAME.json.
func golden(t *testing.T, name string, snapshot *Snapshot) {
	t.Helper()
	path := filepath.Join("testdata", name+".json")
	if *update {
		record(t, path, snapshot)
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, string(want), string(written(t, snapshot)))
}

func written(t *testing.T, snapshot *Snapshot) []byte {
	t.Helper()
	got, err := json.MarshalIndent(snapshot, "", "\t")
	require.NoError(t, err)
	return append(got, '\n')
}

// record writes a snapshot to a file.
func record(t *testing.T, path string, snapshot *Snapshot) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, written(t, snapshot), 0o644))
}

var at = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// sampled adds processes of a GPU to the end of a scenario: two that compute, one of which draws as well, and one that MPS serves.
func sampled(gpus string, at time.Time) string {
	us := at.UnixMicro()
	return gpus + "process c 100 1073741824 4294967295 4294967295\nprocess c 200 2147483648 4294967295 4294967295\n" +
		"process g 200 2147483648 4294967295 4294967295\nprocess m 300 18446744073709551615 4294967295 4294967295\n" +
		fmt.Sprintf("sample 100 %d 40 10 0 0\nsample 100 %d 60 30 0 0\nsample 200 %d 20 5 1 2\nsample 200 %d 101 0 0 0\n", us-2e6, us-1e6, us-1e6, us-5e5)
}

func TestGoldenSnapshots(t *testing.T) {
	for name, gpus := range map[string]string{
		"a100":     sampled(fakenvml.Scenario("a100"), at),
		"h100":     fakenvml.Scenario("h100"),
		"rtx":      fakenvml.Scenario("rtx"),
		"h100-mig": fakenvml.Scenario("h100-mig"),
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := newSource(t, HoldAlways, gpus, nil)
			_, err := s.Snapshot(at)
			require.NoError(t, err)
			got, err := s.Snapshot(at.Add(10 * time.Second))
			require.NoError(t, err)
			golden(t, name, got)
		})
	}
}

func TestAnOldDriverIsAskedForWhatItHas(t *testing.T) {
	if os.Getenv(oldDriver) != "" {
		s, _ := newSource(t, HoldAlways, sampled(fakenvml.Scenario("a100"), at), func(Event) {})
		_, err := s.Snapshot(at)
		require.NoError(t, err)
		got, err := s.Snapshot(at.Add(10 * time.Second))
		require.NoError(t, err)
		golden(t, "old-driver", got)
		return
	}
	fakenvml.RequireCompiler(t)
	args := []string{"-test.run=^TestAnOldDriverIsAskedForWhatItHas$", "-test.v"}
	if *update {
		args = append(args, "-update")
	}
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), oldDriver+"=1")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "a call of a function that is missing ends the process with 127:\n%s", out)
	assert.Contains(t, string(out), "PASS")
}

func TestWhatAHostLacks(t *testing.T) {
	fakenvml.RequireCompiler(t)
	wrong := filepath.Join(t.TempDir(), fakenvml.Name)
	require.NoError(t, os.WriteFile(wrong, []byte("no library"), 0o644))
	for name, tt := range map[string]struct {
		paths  []string
		init   int
		want   string
		absent bool
	}{
		"no library": {
			paths: []string{"/does/not/exist/libnvidia-ml.so.1"}, absent: true,
			want: "NVML is not there: no libnvidia-ml.so.1 in 1 places (nvml.library_paths): the host has no NVIDIA driver, or its library is not in this container",
		},
		"no driver":     {init: 9, absent: true, want: "NVML is not there: " + fake + " is there, and NVIDIA's driver is not loaded (modprobe nvidia)"},
		"no permission": {init: 4, want: "cannot initialise NVML: no permission to open /dev/nvidiactl: a container needs the GPUs' devices, as by NVIDIA_VISIBLE_DEVICES=all"},
		"another version": {
			init: 18, want: "cannot initialise NVML: " + fake + " is of another version than the driver, which was replaced: restart the collector",
		},
		"something else": {init: 999, want: "cannot initialise NVML: Other Error (999)"},
		"a file that is no library": {
			paths: []string{wrong}, want: "cannot load NVIDIA's NVML: " + wrong + ": file too short",
		},
		"another library": {
			paths: []string{"libm.so.6"}, want: "cannot load NVIDIA's NVML: symbol \"nvmlInit_v2\" not found",
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := newSource(t, HoldAlways, fmt.Sprintf("init %d\n", tt.init), nil)
			if tt.paths != nil {
				s.opts.LibraryPaths = tt.paths
			}
			got, err := s.Snapshot(at)
			require.Error(t, err)
			assert.Nil(t, got)
			assert.True(t, strings.HasPrefix(err.Error(), tt.want), err.Error())
			assert.NotContains(t, err.Error(), "\n", "one line")
			assert.Equal(t, tt.absent, errors.Is(err, ErrAbsent))
		})
	}
}

// The tests of this package that need no C library pass without it.
func TestWithoutCgo(t *testing.T) {
	cmd := exec.Command("go", "test", "-count=1", "-v", ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	assert.Contains(t, string(out), "--- PASS: TestABuildWithoutCgoSaysSo")
}
