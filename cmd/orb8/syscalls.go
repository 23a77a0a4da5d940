package main

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/api/orb8/v1/orb8v1connect"
	"github.com/orb8/orb8/internal/syscalls"
)

func newSyscallsCommand(a *app) *cobra.Command {
	req := &orb8v1.QuerySyscallsRequest{Limit: defaultLimit}
	output := outputTable
	cmd := &cobra.Command{
		Use:   "syscalls",
		Short: "Show system calls: how often the processes of each container made which",
		Long: `Shows a row for each container, systemd unit or cgroup and each system call that its processes made,
most calls first. All calls are counted, none is sampled. ERRORS, and latency with -o wide, are there
where the collector measures them (latency: true).

A filter flag may be repeated and takes several values between commas: any of them may match. Of
different flags all must match.`,
		Example: `  # What one pod asks of the kernel
  orb8 syscalls --pod shop/cart-0 --since 5m

  # Who opens files, in all nodes
  orb8 syscalls --syscall open,openat,openat2

  # Calls a container, the busiest first
  orb8 syscalls --limit 0 -o jsonl | jq -s 'group_by(.cgroup) | map({cgroup: .[0].cgroup, calls: (map(.calls) | add)}) | sort_by(-.calls)[]'`,
		Args: noArgs,
	}
	cmd.Flags().SortFlags = false
	addRangeFlags(cmd, a, "calls", &req.Since, &req.Until, &req.Limit)
	filter := addSyscallFlags(cmd)
	addOutputFlag(cmd, &output, rowOutputs())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := checkRange(req); err != nil {
			return err
		}
		req.Allow = allowSyscalls(filter)
		return a.querySyscalls(cmd, req, output)
	}
	return cmd
}

func (a *app) querySyscalls(cmd *cobra.Command, req *orb8v1.QuerySyscallsRequest, output string) error {
	reply, err := call(cmd.Context(), a, orb8v1connect.OrbitServiceClient.QuerySyscalls, req)
	if err != nil {
		return err
	}
	rows := make([]row, len(reply.GetSyscalls()))
	for i, s := range reply.GetSyscalls() {
		rows[i] = row{time: s.GetEnd().AsTime(), count: s}
	}
	columns := syscallColumns(rows)
	if output == outputWide {
		columns = wideSyscallColumns(a.now().Location())
	}
	if err := printRows(cmd, rows, output, columns); err != nil {
		return err
	}
	w := cmd.ErrOrStderr()
	reportCount(w, "row", len(rows), req, reply)
	reportLostCalls(w, reply, "they are in no row")
	reportGaps(w, "system calls", req, reply)
	return nil
}

// addSyscallFlags gives a command the flags that choose system calls. It returns the filter that they fill.
func addSyscallFlags(cmd *cobra.Command) *orb8v1.SyscallFilter {
	f := addContainerFlags(cmd)
	cmd.Flags().Func("syscall", "only this system call, by its `NAME`, or its number where it has none", each(&f.Syscalls, parseSyscall))
	complete(cmd, "syscall", syscallNames())
	return f
}

// addContainerFlags gives a command the flags that choose by who calls.
func addContainerFlags(cmd *cobra.Command) *orb8v1.SyscallFilter {
	f := &orb8v1.SyscallFilter{}
	flags := cmd.Flags()
	flags.Func("pod", "only calls of this `POD` or NAMESPACE/POD", each(&f.Pods, parseName))
	flags.Func("namespace", "only calls of this Kubernetes `NAMESPACE`", each(&f.Namespaces, parseName))
	flags.Func("container", "only calls of this container `NAME` or id (its first 4 digits or more)", each(&f.Containers, parseName))
	flags.Func("cgroup", "only calls of this cgroup and those below it, by its `PATH`: /system.slice/nginx.service", each(&f.Cgroups, parseCgroup))
	flags.Func("node", "only calls on this `NODE`", each(&f.Nodes, parseName))
	return f
}

// allowSyscalls is the filter as a request wants it: no filter at all when no flag was given.
func allowSyscalls(f *orb8v1.SyscallFilter) []*orb8v1.SyscallFilter {
	if len(f.Pods)+len(f.Namespaces)+len(f.Containers)+len(f.Cgroups)+len(f.Syscalls)+len(f.Nodes) == 0 {
		return nil
	}
	return []*orb8v1.SyscallFilter{f}
}

func parseCgroup(s string) (string, error) {
	if s == "" || s[0] != '/' {
		return "", fmt.Errorf("%q is no path below the cgroup v2 root; use one such as /system.slice/nginx.service", s)
	}
	return s, nil
}

func parseSyscall(s string) (string, error) {
	if _, err := strconv.ParseInt(s, 10, 32); err != nil && !syscalls.Known(s) {
		return "", fmt.Errorf("%q is unknown; use a name such as openat, or the number of a call that has none", s)
	}
	return s, nil
}

// syscallNames are those of all ABIs, in the order of the alphabet.
func syscallNames() []string {
	var names []string
	for _, abi := range []syscalls.ABI{syscalls.X86_64, syscalls.I386, syscalls.ARM64, syscalls.ARM} {
		names = append(names, abi.Names()...)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	return slices.DeleteFunc(names, func(name string) bool { return name == "" })
}
