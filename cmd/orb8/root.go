package main

import (
	"strings"
	"time"

	"github.com/spf13/cobra"
)

const defaultAgent = "127.0.0.1:9090"

// app is what the commands share.
type app struct {
	// agent is the HOST:PORT of the collector to ask.
	agent string
	// now also says, by its location, in which time zone tables show times.
	now func() time.Time
}

// newRootCommand builds the command tree. What a holds before is the default of its flags.
func newRootCommand(a *app) *cobra.Command {
	root := group(&cobra.Command{
		Use:   "orb8",
		Short: "Who talks to whom on this host or cluster, and what it asks of the kernel, exactly",
		Long: `orb8 asks an orb8 collector which containers, pods and processes talk to whom, and which system calls
they make, and shows the answer as a table, or as JSON for other tools.`,
		Example: `  # What happened in the last minute
  orb8 flows --since 1m

  # New connections as they are made
  orb8 trace network --kind syn

  # Which system calls the containers of a pod make, and how often
  orb8 syscalls --pod shop/cart-0

  # Is the collector healthy, and has it lost anything?
  orb8 status`,
		SilenceErrors: true,
		SilenceUsage:  true,
	})
	root.PersistentFlags().StringVar(&a.agent, "agent", a.agent,
		"collector to ask, as `HOST:PORT`; the environment variable ORB8_AGENT sets the default")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })

	trace := group(&cobra.Command{
		Use:     "trace",
		Short:   "Show events as they happen",
		Example: "  orb8 trace network",
	})
	trace.AddCommand(newTraceNetworkCommand(a), newTraceDNSCommand(a), newTraceSyscallCommand(a), newTraceAnomalyCommand(a))
	root.AddCommand(newFlowsCommand(a), newDNSCommand(a), newSyscallsCommand(a), newAnomaliesCommand(a), newSeccompCommand(a), trace,
		newStatusCommand(a), newDoctorCommand(), newVersionCommand())
	return root
}

// group makes a command that only holds others: alone it shows its help, and a word it does not know is a mistake.
func group(cmd *cobra.Command) *cobra.Command {
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		var names []string
		for _, sub := range cmd.Commands() {
			if sub.IsAvailableCommand() {
				names = append(names, sub.Name())
			}
		}
		return usagef("unknown command %q for %q; use %s", args[0], cmd.CommandPath(), strings.Join(names, ", "))
	}
	return cmd
}

// noArgs is cobra.NoArgs as a usage error.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("%q takes no argument, not %q; see %q", cmd.CommandPath(), args[0], cmd.CommandPath()+" --help")
	}
	return nil
}
