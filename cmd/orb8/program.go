package main

import (
	"path/filepath"
	"regexp"
	"strings"

	"github.com/spf13/cobra"
)

const (
	// kubectl runs kubectl-orb8 for `kubectl orb8`, and kubectl_complete-orb8 for what may follow that.
	pluginName     = "kubectl-orb8"
	pluginComplete = "kubectl_complete-orb8"
	plugin         = "kubectl orb8"
)

// calledAs returns how the user calls this program, and its arguments.
func calledAs(argv []string) (program string, args []string) {
	switch strings.TrimSuffix(filepath.Base(argv[0]), ".exe") {
	case pluginName:
		return plugin, argv[1:]
	case pluginComplete:
		return plugin, append([]string{cobra.ShellCompRequestCmd}, argv[1:]...)
	}
	return "", argv[1:]
}

// rename makes the help of all commands show the name that the user calls the program by.
func rename(root *cobra.Command, program string) {
	if program == "" {
		return
	}
	root.Annotations = map[string]string{cobra.CommandDisplayNameAnnotation: program}
	var names []string
	for _, cmd := range root.Commands() {
		names = append(names, cmd.Name())
	}
	// Only commands: what else is called orb8 keeps its name.
	calls := regexp.MustCompile(`\b` + root.Name() + ` (` + strings.Join(names, "|") + `)\b`)
	var visit func(*cobra.Command)
	visit = func(cmd *cobra.Command) {
		cmd.Example = calls.ReplaceAllString(cmd.Example, program+" $1")
		cmd.Long = calls.ReplaceAllString(cmd.Long, program+" $1")
		for _, sub := range cmd.Commands() {
			visit(sub)
		}
	}
	visit(root)
}
