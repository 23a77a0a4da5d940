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
	req := &orb8v1.QuerySyscallsRequest{}
	limit, output := uint32(defaultLimit), outputTable
	cmd := &cobra.Command{
		Use:   "syscalls",
		Short: "Show system calls: how often the processes of each container made which",
		Long: `Shows a row for each container, systemd unit or cgroup and each system call that its processes made,
most calls first. All calls are counted, none is sampled. ERRORS, and latency with -o wide, are there
where the collector measures them (latency: true).

` + filterHelp,
		Example: `  # What one pod asks of the kernel
  orb8 syscalls --pod shop/cart-0 --since 5m

  # Who opens files, in all nodes
  orb8 syscalls --syscall open,openat,openat2

  # Calls a container, the busiest first
  orb8 syscalls --limit 0 -o jsonl | jq -s 'group_by(.cgroup) | map({cgroup: .[0].cgroup, calls: (map(.calls) | add)}) | sort_by(-.calls)[]'`,
		Args: noArgs,
	}
	cmd.Flags().SortFlags = false
	addRangeFlags(cmd, a, "calls", &req.Since, &req.Until, &limit)
	filter := addCallFilters(cmd, a)
	addOutputFlag(cmd, &output, rowOutputs())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := filter.check(); err != nil {
			return err
		}
		req.Allow, req.Deny = filter.allow.calls(), denied(filter, (*choice).calls)
		return a.querySyscalls(cmd, req, limit, output)
	}
	return cmd
}

func (a *app) querySyscalls(cmd *cobra.Command, req *orb8v1.QuerySyscallsRequest, limit uint32, output string) error {
	reply, err := ask(cmd, a, question[orb8v1.QuerySyscallsRequest, orb8v1.QuerySyscallsResponse]{
		noun: "row", method: orb8v1connect.OrbitServiceClient.QuerySyscalls,
		layout: layout{example: jsonSyscall{}, columns: func(rows []row, wide bool) []column {
			if wide {
				return wideSyscallColumns(a.now().Location())
			}
			return syscallColumns(rows)
		}},
		page: func(limit uint32, token string) { req.Limit, req.PageToken = limit, token },
		rows: func(reply *orb8v1.QuerySyscallsResponse) []row {
			rows := make([]row, len(reply.GetSyscalls()))
			for i, s := range reply.GetSyscalls() {
				rows[i] = row{time: s.GetEnd().AsTime(), count: s}
			}
			return rows
		},
	}, req, limit, output)
	if err != nil {
		return err
	}
	w := cmd.ErrOrStderr()
	reportLostCalls(w, reply, "they are in no row")
	reportGaps(w, "system calls", req, reply)
	return nil
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
