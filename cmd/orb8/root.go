package main

import (
	"cmp"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
)

// app is what the commands share.
type app struct {
	target
	// program is how the user calls this program; "orb8" if empty.
	program string
	// now also says, by its location, in which time zone tables show times.
	now func() time.Time
	// notices is where everything goes that is not data.
	notices io.Writer

	// watched is true while a command runs again and again.
	watched bool

	connecting sync.Mutex
	connection *connection
}

func (a *app) notice(format string, args ...any) { notice(a.notices, format, args...) }

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
	a.addTargetFlags(root)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })

	trace := group(&cobra.Command{
		Use:     "trace",
		Short:   "Show events as they happen",
		Example: "  orb8 trace network",
	})
	trace.AddCommand(newTraceNetworkCommand(a), newTraceDNSCommand(a), newTraceSyscallCommand(a), newTraceAnomalyCommand(a), newTraceGPUCommand(a), newTraceServeCommand())
	root.AddCommand(newFlowsCommand(a), newDNSCommand(a), newSyscallsCommand(a), newAnomaliesCommand(a), newAggregateCommand(a), newSeccompCommand(a), newTopCommand(a), newWatchCommand(a), trace,
		newStatusCommand(a), newDoctorCommand(), newVersionCommand())
	root.AddCommand(newGPUCommand(a), newWhyCommand(a))
	rename(root, a.program)
	return root
}

// addTargetFlags gives all commands the flags that say which collector to ask, and how.
func (a *app) addTargetFlags(root *cobra.Command) {
	flags := root.PersistentFlags()
	flags.SortFlags = false
	flags.Func("server", "gateway to ask, as `HOST:PORT` (ORB8_SERVER); default: the one that kubectl finds in its cluster",
		a.set("server", &a.server))
	flags.Func("agent", "agent to ask about its node alone, as `HOST:PORT` or node/NAME (ORB8_AGENT); default without a cluster: "+defaultAgent,
		a.set("agent", &a.agent))
	flags.StringVar(&a.kube.context, "context", a.kube.context, "`CONTEXT` of kubectl whose cluster is asked")
	flags.StringVar(&a.kube.kubeconfig, "kubeconfig", a.kube.kubeconfig, "`FILE` that kubectl knows the cluster by")
	flags.StringVar(&a.kube.namespace, "orb8-namespace", cmp.Or(a.kube.namespace, defaultNamespace),
		"`NAMESPACE` of the cluster that has orb8 (ORB8_NAMESPACE)")
	flags.BoolVar(&a.tls.on, "tls", a.tls.on, "use TLS; the other --tls flags imply it (ORB8_TLS=true)")
	flags.StringVar(&a.tls.ca, "tls-ca", a.tls.ca, "PEM `FILE` of the authority that signed the collector's certificate (ORB8_TLS_CA)")
	flags.StringVar(&a.tls.cert, "tls-cert", a.tls.cert, "PEM `FILE` of this client's certificate (ORB8_TLS_CERT)")
	flags.StringVar(&a.tls.key, "tls-key", a.tls.key, "PEM `FILE` of its key (ORB8_TLS_KEY)")
	flags.StringVar(&a.tls.serverName, "tls-server-name", a.tls.serverName,
		"`HOST` that the collector's certificate is for, where it is not the one asked (ORB8_TLS_SERVER_NAME)")
	flags.BoolVar(&a.tls.skipVerify, "insecure-skip-verify", false, "use TLS, but take any certificate: whoever is in between can read along")
	flags.StringVar(&a.tokenFile, "token-file", a.tokenFile, "`FILE` with the bearer token that says who asks (ORB8_TOKEN_FILE)")
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
