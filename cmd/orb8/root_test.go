package main

import (
	"bytes"
	"os"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestEveryCommandExplainsItself(t *testing.T) {
	var visit func(*cobra.Command)
	visit = func(cmd *cobra.Command) {
		t.Run(cmd.CommandPath(), func(t *testing.T) {
			args := append(strings.Fields(cmd.CommandPath())[1:], "--help")
			got := orb8(t, "127.0.0.1:1", args...)
			assert.Zero(t, got.code)
			assert.Empty(t, got.stderr)
			assert.Contains(t, got.stdout, "Examples:\n")
			assert.Contains(t, got.stdout, cmd.CommandPath())
			assert.NotEmpty(t, cmd.Short)
		})
		for _, sub := range cmd.Commands() {
			visit(sub)
		}
	}
	visit(newRootCommand(&app{now: testNow}))
}

// TestReferenceIsComplete holds docs/cli.md to the commands: it names every command and every flag.
func TestReferenceIsComplete(t *testing.T) {
	reference, err := os.ReadFile("../../docs/cli.md")
	require.NoError(t, err)
	var visit func(*cobra.Command)
	visit = func(cmd *cobra.Command) {
		if cmd.Hidden {
			return // it is not for users
		}
		if cmd.Runnable() && !cmd.HasSubCommands() {
			assert.True(t, bytes.Contains(reference, []byte("`"+cmd.CommandPath())), cmd.CommandPath())
		}
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			assert.True(t, bytes.Contains(reference, []byte("`--"+f.Name)), "%s --%s", cmd.CommandPath(), f.Name)
		})
		for _, sub := range cmd.Commands() {
			visit(sub)
		}
	}
	visit(newRootCommand(&app{now: testNow}))
}

func TestUnknownCommands(t *testing.T) {
	tests := []struct{ args, says string }{
		{"flow", `unknown command "flow" for "orb8"; use aggregate, anomalies, completion, dns, doctor, flows, gpu, seccomp, status, syscalls, top, trace, version, watch, why`},
		{"trace syscalls", `unknown command "syscalls" for "orb8 trace"; use anomaly, dns, gpu, network, syscall`},
		{"status worker-1", `"orb8 status" takes no argument, not "worker-1"; see "orb8 status --help"`},
		{"version --short", "unknown flag: --short"},
		{"--agnet x", "unknown flag: --agnet"},
	}
	for _, tt := range tests {
		got := orb8(t, "127.0.0.1:1", strings.Fields(tt.args)...)
		assert.Equal(t, exitUsage, got.code, tt.args)
		assert.Equal(t, "orb8: "+tt.says+"\n", got.stderr)
		assert.Empty(t, got.stdout)
	}
}

func TestGroupsShowTheirHelp(t *testing.T) {
	for _, args := range []string{"", "trace"} {
		got := orb8(t, "127.0.0.1:1", strings.Fields(args)...)
		assert.Zero(t, got.code)
		assert.Contains(t, got.stdout, "Available Commands:")
	}
}

func TestCompletionScripts(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		got := orb8(t, "127.0.0.1:1", "completion", shell)
		assert.Zero(t, got.code, got.stderr)
		assert.Contains(t, got.stdout, "orb8", shell)
	}
}

func TestCompletionOfValues(t *testing.T) {
	tests := []struct {
		args string
		want []string
	}{
		{"flows --protocol ", []string{"tcp", "udp", "icmp", "ipv6-icmp", "sctp"}},
		{"flows --protocol udp,t", []string{"udp,tcp"}},
		{"flows --direction in", []string{"ingress"}},
		{"flows -o json", []string{"json", "jsonl"}},
		{"status -o ", []string{"table", "wide", "json"}},
		{"trace network --kind ", []string{"new", "syn", "fin", "rst", "packet"}},
		{"doctor --mode ", []string{"auto", "cgroup", "tc"}},
		{"syscalls --syscall ", []string{"_llseek", "openat", "socketcall", "writev"}},
		{"trace syscall --syscall read,op", []string{"read,open", "read,openat"}},
		{"anomalies --severity ", []string{"info", "warning", "critical"}},
		{"seccomp --pod x --default ", []string{"errno", "kill", "log"}},
		{"aggregate --by ", []string{"source.pod", "destination.name", "outcome"}},
		{"aggregate --by source.pod,dest", []string{"source.pod,destination.pod"}},
		{"aggregate --signal dns --by ", []string{"client.pod", "rcode"}},
		{"aggregate --signal syscalls --sum ", []string{"calls", "errors"}},
		{"aggregate --signal ", []string{"flows", "dns", "syscalls", "anomalies"}},
		{"tr", []string{"trace"}},
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			// The last word is the one being typed, even if it is empty.
			got := orb8(t, "127.0.0.1:1", append([]string{cobra.ShellCompNoDescRequestCmd}, strings.Split(tt.args, " ")...)...)
			require.Zero(t, got.code, got.stderr)
			for _, want := range tt.want {
				assert.Contains(t, strings.Split(got.stdout, "\n"), want)
			}
		})
	}
}

func TestVersion(t *testing.T) {
	got := orb8(t, "127.0.0.1:1", "version")
	assert.Zero(t, got.code)
	assert.Regexp(t, `^orb8 \S.* go1\.\S+ \w+/\w+\n$`, got.stdout)
}

func TestVersionLine(t *testing.T) {
	commit := debug.BuildSetting{Key: "vcs.revision", Value: "0123456789abcdef0123456789abcdef01234567"}
	clean := debug.BuildSetting{Key: "vcs.modified", Value: "false"}
	dirty := debug.BuildSetting{Key: "vcs.modified", Value: "true"}
	tests := []struct {
		name, linked, module string
		settings             []debug.BuildSetting
		want                 string
	}{
		{"make build", "v0.1.0", "(devel)", []debug.BuildSetting{commit, clean}, "orb8 v0.1.0 commit 0123456789ab go"},
		{"edited", "v0.1.0", "(devel)", []debug.BuildSetting{commit, dirty}, "orb8 v0.1.0 commit 0123456789ab (modified) go"},
		{"go install", "", "v0.2.0", nil, "orb8 v0.2.0 go"},
		{"nothing known", "", "", nil, "orb8 (unknown version) go"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := versionLine(tt.linked, &debug.BuildInfo{Main: debug.Module{Version: tt.module}, Settings: tt.settings})
			assert.True(t, strings.HasPrefix(got, tt.want), got)
		})
	}
}
