package main

import (
	"bufio"
	"context"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

// whyRange is how far back `orb8 why` looks unless it is told.
const whyRange = 15 * time.Minute

func newWhyCommand(a *app) *cobra.Command {
	of := &orb8v1.GpuFilter{}
	var since, until *timestamppb.Timestamp
	output := outputTable
	cmd := &cobra.Command{
		Use:   "why POD",
		Short: "Tell why the GPUs of a pod idle: the network, system calls, synchronising, or its own work on the CPU",
		Long: `Tells how busy the GPUs of a pod were in the last 15 minutes, or since --since, and what the pod did while
they idled. The verdict is the cause that most of the idle time goes to:

  network        its threads waited for peers
  syscalls       they were in other system calls: files, devices, memory, sleep
  synchronising  they waited in CUDA for what the GPU had been given
  cpu            none of these: what is left is time on the CPU, which is not measured itself
  mixed          several of these, none of them most of the time
  busy           the GPUs were busy 80 % of the time: there is nothing to explain

"not enough data" says which source is off, and how to turn it on. The times that system calls take are
needed: latency: true of ebpf_syscall. docs/why.md explains the method, and what it cannot see.`,
		Example: `  orb8 why ml/train-0

  # Yesterday's idle hour
  orb8 why ml/train-0 --since 2026-01-31T15:00:00Z --until 2026-01-31T16:00:00Z

  # Without Kubernetes: a container by its id
  orb8 why --container 5a1b2c3d

  # Which cause, and how much of the idle time, for a script
  orb8 why ml/train-0 -o json | jq -r '"\(.verdict) \(.shares)"'`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef("name one pod, not %q", args)
			}
			return nil
		},
	}
	cmd.Flags().SortFlags = false
	addTimeFlags(cmd, a, "what was measured", &since, &until)
	cmd.Flags().Func("container", "this container, by its `NAME` or id (its first 4 digits or more); with POD, one of its containers", func(s string) error {
		name, err := parseName(s)
		of.Containers = []string{name}
		return err
	})
	addOutputFlag(cmd, &output, []string{outputTable, outputJSON})
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
		defer cancel()
		return a.seenOnGPUs(ctx, gpuPods), cobra.ShellCompDirectiveNoFileComp
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		for _, pod := range args {
			name, err := parseQualified(pod)
			if err != nil {
				return usageError{err}
			}
			of.Pods = []string{name}
		}
		if len(of.GetPods())+len(of.GetContainers()) == 0 {
			return usagef("name the pod: orb8 why POD or NAMESPACE/POD, or a container by --container")
		}
		if err := checkRange(&orb8v1.QueryGpuRequest{Since: since, Until: until}); err != nil {
			return err
		}
		return a.why(cmd, of, since, until, output)
	}
	return cmd
}

func (a *app) why(cmd *cobra.Command, of *orb8v1.GpuFilter, since, until *timestamppb.Timestamp, output string) error {
	q := &whyQuestion{app: a, of: of, until: a.now()}
	q.since = q.until.Add(-whyRange)
	if until != nil {
		q.until, q.explicit = until.AsTime(), true
		q.since = q.until.Add(-whyRange)
	}
	if since != nil {
		q.since = since.AsTime()
	}
	answer, err := q.ask(cmd.Context())
	if err != nil {
		return err
	}
	if output == outputJSON {
		return writeJSONDocument(cmd.OutOrStdout(), newJSONWhy(answer))
	}
	out := bufio.NewWriter(cmd.OutOrStdout())
	p := whyPrinter{statusPrinter{w: out, screen: screenOf(cmd.OutOrStdout()), now: a.now()}}
	p.answer(answer)
	return out.Flush()
}
