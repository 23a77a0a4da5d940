package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/orb8/orb8/internal/preflight"
)

func report(t *testing.T, checks []preflight.Check, output string) (string, error) {
	t.Helper()
	var stdout strings.Builder
	cmd := &cobra.Command{}
	cmd.SetOut(&stdout)
	err := reportChecks(cmd, checks, output)
	return stdout.String(), err
}

func TestDoctorReport(t *testing.T) {
	well := preflight.Check{Name: "kernel", Status: preflight.OK, Detail: "Linux 6.18.0"}
	odd := preflight.Check{Name: "btf", Status: preflight.Warn, Detail: "flows do not name their process", Fix: "use a kernel with BTF"}
	bad := preflight.Check{Name: "capabilities", Status: preflight.Fail, Detail: "this process lacks CAP_BPF", Fix: "run as root"}
	tests := []struct {
		name   string
		checks []preflight.Check
		want   string
		err    string
	}{
		{"all is well", []preflight.Check{well}, "ok    kernel        Linux 6.18.0\n", ""},
		{
			"a warning is no failure", []preflight.Check{well, odd},
			"ok    kernel        Linux 6.18.0\n" +
				"warn  btf           flows do not name their process\n" +
				"               fix: use a kernel with BTF\n",
			"",
		},
		{
			"a failure", []preflight.Check{bad, well},
			"FAIL  capabilities  this process lacks CAP_BPF\n" +
				"               fix: run as root\n" +
				"ok    kernel        Linux 6.18.0\n",
			"1 check failed: a collector cannot observe this host",
		},
		{"failures", []preflight.Check{bad, bad}, "FAIL", "2 checks failed: a collector cannot observe this host"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			table, err := report(t, tt.checks, outputTable)
			assert.True(t, strings.HasPrefix(table, tt.want), table)
			var checks []map[string]string
			data, jsonErr := report(t, tt.checks, outputJSON)
			require.NoError(t, json.Unmarshal([]byte(data), &checks))
			assert.Len(t, checks, len(tt.checks))
			if tt.err == "" {
				assert.NoError(t, err)
				assert.NoError(t, jsonErr)
				return
			}
			assert.EqualError(t, err, tt.err)
			assert.EqualError(t, jsonErr, tt.err, "the exit code does not depend on the format")
		})
	}
}

func TestDoctorJSON(t *testing.T) {
	got, err := report(t, []preflight.Check{{Name: "btf", Status: preflight.Warn, Detail: "none", Fix: "a -> b"}}, outputJSON)
	require.NoError(t, err)
	assert.JSONEq(t, `[{"name": "btf", "status": "warn", "detail": "none", "fix": "a -> b"}]`, got)
}

// TestDoctorRunsHere takes the host as it is: what must hold everywhere is that report and exit code agree.
func TestDoctorRunsHere(t *testing.T) {
	got := orb8(t, "not an agent", "doctor", "-o", "json")
	var checks []struct{ Name, Status, Detail, Fix string }
	require.NoError(t, json.Unmarshal([]byte(got.stdout), &checks))
	require.NotEmpty(t, checks)
	failed := false
	for _, c := range checks {
		assert.NotEmpty(t, c.Name)
		assert.Contains(t, []string{"ok", "warn", "fail"}, c.Status)
		failed = failed || c.Status == "fail"
	}
	assert.Equal(t, failed, got.code == exitFailed)
	assert.Equal(t, failed, got.stderr != "", "silent when all is well")
}

func TestDoctorRefuses(t *testing.T) {
	got := orb8(t, defaultAgent, "doctor", "--mode", "xdp")
	assert.Equal(t, exitUsage, got.code)
	assert.Contains(t, got.stderr, `invalid argument "xdp" for "--mode" flag: use auto, cgroup or tc`)
}
