package main

import (
	"cmp"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

func newTraceSyscallCommand(a *app) *cobra.Command {
	output := outputTable
	cmd := &cobra.Command{
		Use:   "syscall",
		Short: "Show system calls as they are made",
		Long: `Shows system calls as they are made, with the arguments that matter, until interrupted. Hot calls, such
as read, are sampled as the collector is configured: 1:100 behind one says that it stands for a hundred.
"orb8 syscalls" counts all.

Filter flags are those of "orb8 syscalls".`,
		Example: `  # Which programs are started, and by whom
  orb8 trace syscall --syscall execve,execveat

  # Which files a pod opens
  orb8 trace syscall --pod shop/cart-0 --syscall open,openat,openat2 -o jsonl | jq -r .arguments.pathname`,
		Args: noArgs,
	}
	cmd.Flags().SortFlags = false
	filter := addCallFilters(cmd, a)
	addOutputFlag(cmd, &output, rowOutputs())
	node := addTraceNodeFlags(cmd, syscallReceiver)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := filter.check(); err != nil {
			return err
		}
		if err := node.connectTo(cmd.Context(), a, filter.allow.flow.Nodes); err != nil {
			return err
		}
		return a.stream(cmd, &orb8v1.StreamEventsRequest{
			Syscalls: filter.allow.calls(), DenySyscalls: denied(filter, (*choice).calls),
			Kinds: []orb8v1.EventKind{orb8v1.EventKind_EVENT_KIND_SYSCALL},
		}, output, layout{example: jsonSyscallEvent{}, columns: func(_ []row, wide bool) []column {
			if wide {
				return wideTraceSyscallColumns(a.now().Location())
			}
			return traceSyscallColumns(a.now().Location())
		}})
	}
	return cmd
}

// traceSyscallColumns leave the end of the line to the call, which is never cut: its arguments are what it is about.
func traceSyscallColumns(zone *time.Location) []column {
	return []column{
		timeColumn("TIME", eventLayout, zone, row.when),
		{title: "CONTAINER", text: func(r row) string { return containerName(r.call.GetContainer()) }, flexible: true, room: containerRoom},
		{title: "PROCESS", text: func(r row) string { return callingProcess(r.call) }, flexible: true, room: len("postgres[1234567]")},
		{title: "CALL", text: func(r row) string { return callText(r.call) }, endless: true},
	}
}

func wideTraceSyscallColumns(zone *time.Location) []column {
	return []column{
		timeColumn("TIME", wideLayout, zone, row.when),
		{title: "NODE", text: func(r row) string { return r.call.GetNode() }, room: 16},
		{title: "NAMESPACE", text: func(r row) string { return r.call.GetContainer().GetNamespace() }, room: 16},
		{title: "POD", text: func(r row) string { return r.call.GetContainer().GetPod() }, room: 32},
		{title: "CONTAINER", text: func(r row) string { return r.call.GetContainer().GetName() }, room: 16},
		{title: "PROCESS", text: func(r row) string { return callingProcess(r.call) }, room: len("postgres[1234567]")},
		{title: "TID", text: func(r row) string { return strconv.FormatUint(uint64(r.call.GetTid()), 10) }, right: true, room: len("1234567")},
		{title: "CGROUP", text: func(r row) string { return r.call.GetContainer().GetCgroup() }, room: nameRoom},
		{title: "CALL", text: func(r row) string { return callText(r.call) }, endless: true},
	}
}

func callingProcess(e *orb8v1.SyscallEvent) string {
	return process(&orb8v1.Endpoint{Process: e.GetProcess(), Pid: e.GetPid()})
}

// callText is a call as strace shows it. As only some of the parameters are there, each has its name.
func callText(e *orb8v1.SyscallEvent) string {
	arguments := make([]string, len(e.GetArguments()))
	for i, argument := range e.GetArguments() {
		// What a program passed as an empty string must not look as if something were missing.
		arguments[i] = argument.GetName() + "=" + cmp.Or(argument.GetValue(), `""`)
	}
	text := callName(e.GetAbi(), e.GetName()) + "(" + strings.Join(arguments, ", ") + ")"
	if e.GetSampling() > 1 {
		text += " 1:" + strconv.FormatUint(uint64(e.GetSampling()), 10)
	}
	return text
}

// jsonSyscallEvent is a call as JSON.
type jsonSyscallEvent struct {
	// Kind is present in streams.
	Kind string `json:"kind,omitempty"`
	Time string `json:"time"`
	jsonCaller
	jsonMadeCall
}

// jsonMadeCall is a call and who made it.
type jsonMadeCall struct {
	jsonCall
	Process   string            `json:"process"`
	PID       uint32            `json:"pid"`
	TID       uint32            `json:"tid"`
	Arguments map[string]string `json:"arguments"`
	Sampling  uint32            `json:"sampling"`
}

func newJSONSyscallEvent(r row) jsonSyscallEvent {
	return jsonSyscallEvent{
		Kind: kindName(r.kind), Time: rfc3339(r.call.GetTime()),
		jsonCaller: newJSONCaller(r.call.GetNode(), r.call.GetContainer()), jsonMadeCall: newJSONMadeCall(r.call),
	}
}

func newJSONMadeCall(e *orb8v1.SyscallEvent) jsonMadeCall {
	j := jsonMadeCall{
		jsonCall: jsonCall{Syscall: e.GetName(), ABI: e.GetAbi(), Number: e.GetNumber()},
		Process:  e.GetProcess(), PID: e.GetPid(), TID: e.GetTid(), Arguments: map[string]string{}, Sampling: e.GetSampling(),
	}
	for _, argument := range e.GetArguments() {
		j.Arguments[argument.GetName()] = argument.GetValue()
	}
	return j
}
