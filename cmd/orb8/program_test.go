package main

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/assert"
)

func TestCalledAs(t *testing.T) {
	tests := []struct {
		argv, program, args string
	}{
		{"orb8 flows", "", "flows"},
		{"/usr/bin/orb8", "", ""},
		{"/root/.krew/bin/kubectl-orb8 flows --pod a", "kubectl orb8", "flows --pod a"},
		{"kubectl-orb8.exe status", "kubectl orb8", "status"},
		{"kubectl_complete-orb8 flows --pod x", "kubectl orb8", cobra.ShellCompRequestCmd + " flows --pod x"},
	}
	for _, tt := range tests {
		program, args := calledAs(strings.Fields(tt.argv))
		assert.Equal(t, tt.program, program, tt.argv)
		assert.Equal(t, tt.args, strings.Join(args, " "), tt.argv)
	}
}

// TestHelpOfThePlugin holds that no help text of `kubectl orb8` tells to run `orb8`.
func TestHelpOfThePlugin(t *testing.T) {
	root := newRootCommand(&app{program: plugin, now: testNow})
	var visit func(*cobra.Command)
	visit = func(cmd *cobra.Command) {
		for line := range strings.Lines(cmd.UsageString() + cmd.Long) {
			assert.NotRegexp(t, `(^|[^l]) "?orb8 [a-z]`, strings.ReplaceAll(line, "an orb8 collector", ""), cmd.CommandPath())
		}
		for _, sub := range cmd.Commands() {
			if sub.Name() != "completion" {
				visit(sub)
			}
		}
	}
	visit(root)
	assert.Equal(t, "kubectl orb8 trace network", find(t, root, "trace", "network").CommandPath())
}

func find(t *testing.T, root *cobra.Command, path ...string) *cobra.Command {
	t.Helper()
	cmd, _, err := root.Find(path)
	assert.NoError(t, err)
	return cmd
}
