//go:build linux

package main

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestCommandLine(t *testing.T) {
	for name, tt := range map[string]struct {
		args []string
		want string // error
	}{
		"not up":                   {[]string{"status"}, "cluster nobody-s is not up"},
		"flags after kubectl":      {[]string{"kubectl", "get", "pods", "--name", "x", "-A"}, "cluster nobody-s is not up"},
		"flags after a command":    {[]string{"exec", "ip", "-br", "addr", "--name=x"}, "cluster nobody-s is not up"},
		"nothing to run":           {[]string{"exec"}, "requires at least 1 arg"},
		"unknown API server state": {[]string{"apiserver", "restart"}, "invalid argument"},
		"unknown command":          {[]string{"reboot"}, "unknown command"},
		"bad name":                 {[]string{"--name=../x", "down"}, `cluster name "../x"`},
	} {
		t.Run(name, func(t *testing.T) {
			root := newRootCommand()
			root.SetArgs(append([]string{"--name=nobody-s"}, tt.args...))
			require.ErrorContains(t, root.Execute(), tt.want)
		})
	}
}

func TestHelp(t *testing.T) {
	var out bytes.Buffer
	root := newRootCommand()
	root.SetOut(&out)
	root.SetArgs([]string{"--help"})
	require.NoError(t, root.Execute())
	for _, command := range root.Commands() {
		assert.NotEmpty(t, command.Short, command.Name())
		assert.Contains(t, out.String(), "\n  "+command.Name()+" ")
	}
}
