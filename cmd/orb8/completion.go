package main

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/api/orb8/v1/orb8v1connect"
)

const (
	// completionTimeout is how long a shell may wait for names: what takes longer is faster typed.
	completionTimeout = 2 * time.Second
	// completionAge is how far back who talked or called is offered.
	completionAge = time.Hour
	// completionNames is how many names of a kind are offered: those with the most traffic.
	completionNames = 1000
)

// completeNames makes the shell offer what a collector knows, also after a comma. A collector that does not answer in time offers
// nothing.
func (f *filterFlags) completeNames(flag string, names func(ctx context.Context, typed string) []string) {
	offer := func(cmd *cobra.Command, _ []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
		defer cancel()
		comma := strings.LastIndexByte(typed, ',') + 1
		before, word := typed[:comma], typed[comma:]
		directive := cobra.ShellCompDirectiveNoFileComp
		var offers []cobra.Completion
		for _, name := range names(ctx, word) {
			if !strings.HasPrefix(name, word) {
				continue
			}
			if strings.HasSuffix(name, "/") {
				directive |= cobra.ShellCompDirectiveNoSpace
			}
			offers = append(offers, before+name)
		}
		return offers, directive
	}
	// It fails only for a flag that does not exist.
	cobra.CheckErr(f.cmd.RegisterFlagCompletionFunc(flag, offer))
}

func (f *filterFlags) completePods() {
	f.completeNames("pod", f.qualified("pod"))
	f.completeNames("workload", f.qualified("workload"))
	f.completeNames("namespace", f.plain("namespace"))
	f.completeNames("container", f.plain("container"))
}

func (f *filterFlags) completeEnds() {
	f.completeNames("service", f.qualified("service"))
	f.completeNames("from", f.ends)
	f.completeNames("to", f.ends)
}

func (f *filterFlags) completeNodes() {
	f.completeNames("node", func(ctx context.Context, _ string) []string {
		reply, err := call(ctx, f.app, orb8v1connect.OrbitServiceClient.GetStatus, &orb8v1.GetStatusRequest{})
		if err != nil {
			return nil
		}
		var names []string
		for _, n := range reply.GetNodes() {
			names = append(names, n.GetNode())
		}
		return names
	})
}

// ends offers what --from and --to take: pods, and more once its kind is typed.
func (f *filterFlags) ends(ctx context.Context, typed string) []string {
	word, rest, slash := strings.Cut(typed, "/")
	kind, known := endKinds()[word]
	if !slash || !known {
		return append(f.qualified("pod")(ctx, typed), "deploy/", "name/", "ns/", "pod/", "svc/")
	}
	var names []string
	switch kind {
	case endPod:
		names = f.qualified("pod")(ctx, rest)
	case endNamespace:
		names = f.plain("namespace")(ctx, rest)
	case endService:
		names = f.qualified("service")(ctx, rest)
	case endWorkload:
		names = f.qualified("workload")(ctx, rest)
	case endName:
		names = f.plain("name")(ctx, rest)
	case endAddress:
		names = f.plain("address")(ctx, rest)
	}
	for i, name := range names {
		names[i] = word + "/" + name
	}
	return names
}

func (f *filterFlags) plain(what string) func(context.Context, string) []string {
	return func(ctx context.Context, _ string) []string { return f.seen(ctx, what) }
}

// qualified offers NAMESPACE/NAME, and the names alone when one is being typed.
func (f *filterFlags) qualified(what string) func(context.Context, string) []string {
	return func(ctx context.Context, typed string) []string {
		names := f.seen(ctx, what)
		if typed == "" || strings.Contains(typed, "/") {
			return names
		}
		for _, name := range names {
			if _, alone, ok := strings.Cut(name, "/"); ok {
				names = append(names, alone)
			}
		}
		slices.Sort(names)
		return slices.Compact(names)
	}
}

// seen returns what flows had lately at either end, and what made system calls: a collector may know only one of them.
func (f *filterFlags) seen(ctx context.Context, what string) []string {
	questions := []*orb8v1.AggregateRequest{
		{Signal: orb8v1.Signal_SIGNAL_FLOWS, By: []string{"source." + what}},
		{Signal: orb8v1.Signal_SIGNAL_FLOWS, By: []string{"destination." + what}},
	}
	if slices.Contains(signalOf("syscalls").dimensions, what) {
		questions = append(questions, &orb8v1.AggregateRequest{Signal: orb8v1.Signal_SIGNAL_SYSCALLS, By: []string{what}})
	}
	var mu sync.Mutex
	found := map[string]bool{}
	var asking sync.WaitGroup
	for _, req := range questions {
		req.Since, req.Top = timestamppb.New(f.app.now().Add(-completionAge)), completionNames
		asking.Go(func() {
			reply, err := call(ctx, f.app, orb8v1connect.OrbitServiceClient.Aggregate, req)
			if err != nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			for _, group := range reply.GetGroups() {
				if name := at(group.GetBy(), 0); name != "" {
					found[printable(name)] = true
				}
			}
		})
	}
	asking.Wait()
	return slices.Sorted(maps.Keys(found))
}
