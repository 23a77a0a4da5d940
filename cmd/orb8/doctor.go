package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/orb8/orb8/internal/preflight"
)

func newDoctorCommand() *cobra.Command {
	output := outputTable
	opts := preflight.Options{Mode: preflight.ModeAuto, Syscalls: true}
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check whether a collector can observe this host",
		Long: `Checks the kernel, the capabilities of this process and what else a collector needs to observe this
host. It asks no collector and changes nothing; run it as the user that the collector runs as. The exit
code is 1 when a check fails.`,
		Example: `  sudo orb8 doctor

  # What would keep a collector in tc mode from running?
  sudo orb8 doctor --mode tc -o json | jq '.[] | select(.status == "fail")'`,
		Args: noArgs,
	}
	modes := []string{preflight.ModeAuto, preflight.ModeCgroup, preflight.ModeTC}
	cmd.Flags().Func("mode", "attach `MODE` to check for: "+anyOf(modes)+" (default auto)", oneOf(&opts.Mode, modes))
	complete(cmd, "mode", modes)
	addOutputFlag(cmd, &output, []string{outputTable, outputJSON, outputJSONL, outputCSV})
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return reportChecks(cmd, preflight.Run(cmd.Context(), opts), output)
	}
	return cmd
}

// reportChecks shows checks. It fails when one of them has.
func reportChecks(cmd *cobra.Command, checks []preflight.Check, output string) error {
	failed := uint64(0)
	for _, c := range checks {
		if c.Status == preflight.Fail {
			failed++
		}
	}
	if err := writeChecks(cmd.OutOrStdout(), checks, output); err != nil {
		return err
	}
	if failed > 0 {
		return fmt.Errorf("%s failed: a collector cannot observe this host", plural(failed, "check"))
	}
	return nil
}

func writeChecks(w io.Writer, checks []preflight.Check, output string) error {
	out := bufio.NewWriter(w)
	switch output {
	case outputJSON:
		return writeJSONDocument(w, checks)
	case outputJSONL, outputCSV:
		rows := make([]row, len(checks))
		for i, c := range checks {
			rows[i] = row{json: c}
		}
		l := newRowsWriter(out, output, layout{example: preflight.Check{}}, screenOf(w))
		return errors.Join(l.add(rows), l.end(), out.Flush())
	}
	for _, c := range checks {
		writeCheck(out, screenOf(w), c)
	}
	return out.Flush()
}

func writeCheck(w *bufio.Writer, s screen, c preflight.Check) {
	mark, style := c.Status.String(), styleGreen
	switch c.Status {
	case preflight.Warn:
		style = styleYellow
	case preflight.Fail:
		mark, style = strings.ToUpper(mark), styleRed
	}
	// The mark is padded before it is painted: escape codes have no width.
	fmt.Fprintf(w, "%s  %-12s  %s\n", s.paint(style, fmt.Sprintf("%-4s", mark)), c.Name, printable(c.Detail))
	if c.Status != preflight.OK && c.Fix != "" {
		fmt.Fprintf(w, "%20s%s\n", "fix: ", printable(c.Fix))
	}
}
