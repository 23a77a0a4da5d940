package main

import (
	"cmp"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func newVersionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Show the version of this command",
		Long:    `Shows the version of this command. "orb8 status" shows those of the collectors.`,
		Example: "  orb8 version",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			info, ok := debug.ReadBuildInfo()
			if !ok {
				info = &debug.BuildInfo{}
			}
			_, err := fmt.Fprintln(cmd.OutOrStdout(), versionLine(version, info))
			return err
		},
	}
}

// versionLine says what was built, of which commit, with what and for what. linked is the version that the linker set,
// if it did.
func versionLine(linked string, info *debug.BuildInfo) string {
	settings := map[string]string{}
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	line := "orb8 " + cmp.Or(linked, info.Main.Version, "(unknown version)")
	if commit := settings["vcs.revision"]; commit != "" {
		line += " commit " + commit[:min(12, len(commit))]
		if settings["vcs.modified"] == "true" {
			line += " (modified)"
		}
	}
	return line + " " + runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH
}
