package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/api/orb8/v1/orb8v1connect"
)

func newSeccompCommand(a *app) *cobra.Command {
	req := &orb8v1.QuerySyscallsRequest{}
	action, keepSetup := "errno", false
	cmd := &cobra.Command{
		Use:   "seccomp",
		Short: "Print a seccomp profile that allows what was observed",
		Long: `Prints a seccomp profile in the format of the OCI runtime specification, which runc, containerd, CRI-O,
Docker, Podman and Kubernetes (type: Localhost) take. It allows the system calls that the chosen
containers made in the range, and the few that the runtime makes itself between the filter and the
program; everything else is refused.

What a container did not do while it was observed is not allowed: observe its whole life, from its start
to its end, under a load that uses everything. What the profile does not know is said on stderr.`,
		Example: `  # A profile of all replicas of an application
  orb8 seccomp --namespace shop --container cart > cart.json

  # Which calls would be refused? Try it where they are only written to the audit log
  orb8 seccomp --pod shop/cart-0 --default log > cart.json

  # Give it to a container
  docker run --security-opt seccomp=cart.json --security-opt no-new-privileges shop/cart`,
		Args: noArgs,
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	addTimeFlags(cmd, a, "calls", &req.Since, &req.Until)
	filter := addContainerFilters(cmd, a)
	flags.Func("default", "`ACTION` for all other calls: errno (EPERM), kill (the process) or log (allow and log) (default errno)",
		oneOf(&action, seccompActionNames()))
	complete(cmd, "default", seccompActionNames())
	flags.BoolVar(&keepSetup, "keep-setup", false, "allow the calls that were made only while the runtime set the container up, such as mount")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := filter.check(); err != nil {
			return err
		}
		chosen := &filter.allow.flow
		if len(chosen.Pods)+len(chosen.Workloads)+len(chosen.Labels)+len(chosen.Containers)+len(filter.allow.cgroups) == 0 {
			return usagef("whose profile? name a --pod, --workload, --label, --container or --cgroup")
		}
		if err := checkRange(req); err != nil {
			return err
		}
		req.Allow, req.Deny = filter.allow.calls(), denied(filter, (*choice).calls)
		return a.printSeccomp(cmd, req, action, keepSetup)
	}
	return cmd
}

func (a *app) printSeccomp(cmd *cobra.Command, req *orb8v1.QuerySyscallsRequest, action string, keepSetup bool) error {
	var calls []*orb8v1.Syscall
	page := func(limit uint32, token string) { req.Limit, req.PageToken = limit, token }
	reply, last, err := pages(cmd.Context(), a, orb8v1connect.OrbitServiceClient.QuerySyscalls, req, page, 0,
		func(reply *orb8v1.QuerySyscallsResponse) (int, error) {
			calls = append(calls, reply.GetSyscalls()...)
			return len(reply.GetSyscalls()), nil
		})
	if err != nil {
		return err
	}
	if len(calls) == 0 {
		return errors.New("nothing of that selection was observed in this range: there is nothing to allow")
	}
	if last.GetTruncated() {
		return fmt.Errorf("the collector gives %s of %s only, and a profile of those would lack calls; choose fewer containers, or raise max_rows",
			grouped(uint64(len(calls))), plural(reply.GetMatched(), "row"))
	}
	o := observe(calls)
	if err := writeJSONDocument(cmd.OutOrStdout(), o.profile(action, keepSetup)); err != nil {
		return err
	}
	w := cmd.ErrOrStderr()
	o.report(w, reply, keepSetup)
	reportGaps(w, "system calls", req, reply)
	return nil
}

// report says how much the profile can be relied on.
func (o *observed) report(w io.Writer, reply *orb8v1.QuerySyscallsResponse, keepSetup bool) {
	containers, started := uint64(len(o.containers)), uint64(0)
	lost := reply.GetLost().GetCalls()
	for _, c := range o.containers {
		lost = max(lost, c.lost)
		if c.isStarted() {
			started++
		}
	}
	notice(w, "observed %s for %s; lost %s", plural(containers, "container"), humanAge(o.end.Sub(o.start)), grouped(lost))
	if lost > 0 {
		notice(w, "nobody knows which the lost calls were: the profile may lack some")
	}
	if missed := containers - started; missed > 0 {
		notice(w, "the start of %s was not seen: what is called only then may be missing", plural(missed, "container"))
	}
	if setup := o.setupNames(); len(setup) > 0 && !keepSetup {
		notice(w, "left out, as called only while the container was set up: %s; --keep-setup allows them", strings.Join(setup, ", "))
	}
	if numbers := o.unnamed(); len(numbers) > 0 {
		notice(w, "left out, as a profile has names only: %s", strings.Join(numbers, ", "))
	}
}
