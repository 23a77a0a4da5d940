package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

// knownNames answers who was seen, for each dimension.
func knownNames(req *orb8v1.AggregateRequest) *orb8v1.AggregateResponse {
	known := map[string][]string{
		"source.pod": {"shop/cart-0", "shop/cart-1", "web/cart-0", ""}, "destination.pod": {"shop/db-0"}, "pod": {"jobs/batch-x"},
		"source.namespace": {"shop"}, "destination.namespace": {"kube-system"}, "destination.service": {"shop/cart", "default/kubernetes"},
		"source.workload": {"shop/cart"}, "destination.name": {"www.example.com"}, "container": {"cart"},
		"source.address": {"10.0.0.1"},
	}
	reply := &orb8v1.AggregateResponse{By: req.GetBy(), Measures: []string{"bytes"}}
	for _, name := range known[req.GetBy()[0]] {
		reply.Groups = append(reply.Groups, &orb8v1.AggregateGroup{By: []string{name}, Values: []uint64{1}})
	}
	return reply
}

// completions runs what a shell runs when the last of the words is being typed.
func completions(t *testing.T, agent, line string) (offers []string, directive string) {
	t.Helper()
	got := orb8(t, agent, append([]string{cobra.ShellCompNoDescRequestCmd}, strings.Split(line, " ")...)...)
	require.Zero(t, got.code, got.stderr)
	lines := strings.Split(strings.TrimSuffix(got.stdout, "\n"), "\n")
	return lines[:len(lines)-1], lines[len(lines)-1]
}

func TestCompletionOfNames(t *testing.T) {
	agent := (&fakeCollector{aggregate: knownNames, status: cannedStatus()}).serve(t)
	tests := []struct {
		line string
		want []string
	}{
		{"flows --pod ", []string{"jobs/batch-x", "shop/cart-0", "shop/cart-1", "shop/db-0", "web/cart-0"}},
		{"flows --pod cart", []string{"cart-0", "cart-1"}},
		{"flows --pod shop/c", []string{"shop/cart-0", "shop/cart-1"}},
		{"flows --not --pod web/cart-0,shop/d", []string{"web/cart-0,shop/db-0"}},
		{"flows --namespace ", []string{"kube-system", "shop"}},
		{"trace dns --namespace k", []string{"kube-system"}},
		{"flows --node ", []string{"worker-1", "worker-2", "worker-3"}},
		{"syscalls --node worker-2", []string{"worker-2"}},
		{"syscalls --pod j", []string{"jobs/batch-x"}},
		{"seccomp --container ", []string{"cart"}},
		{"aggregate --service ", []string{"default/kubernetes", "shop/cart"}},
		{"flows --workload shop/", []string{"shop/cart"}},
		{"flows --from shop/db", []string{"shop/db-0"}},
		{"flows --to s", []string{"shop/cart-0", "shop/cart-1", "shop/db-0", "svc/"}},
		{"flows --to svc/", []string{"svc/default/kubernetes", "svc/shop/cart"}},
		{"flows --to ns/", []string{"ns/kube-system", "ns/shop"}},
		{"flows --to deploy/c", []string{"deploy/cart"}},
		{"flows --to name/", []string{"name/www.example.com"}},
		{"flows --to pod/cart-1", []string{"pod/cart-1"}},
		{"flows --from ip/", []string{"ip/10.0.0.1"}},
	}
	for _, tt := range tests {
		t.Run(tt.line, func(t *testing.T) {
			offers, directive := completions(t, agent, tt.line)
			assert.Equal(t, tt.want, offers)
			assert.NotContains(t, directive, ":0", "files are no names")
		})
	}
	_, directive := completions(t, agent, "flows --to sv")
	assert.Equal(t, ":6", directive, "no blank after svc/, and no files")
}

// TestCompletionAsksTheCollectorOfTheLine holds that flags before the word count.
func TestCompletionAsksTheCollectorOfTheLine(t *testing.T) {
	agent := (&fakeCollector{aggregate: knownNames}).serve(t)
	offers, _ := completions(t, "127.0.0.1:1", "flows --agent "+agent+" --namespace ")
	assert.Equal(t, []string{"kube-system", "shop"}, offers)
}

// deafCollector takes a question and never answers it.
type deafCollector struct{ fakeCollector }

func (*deafCollector) Aggregate(ctx context.Context, _ *connect.Request[orb8v1.AggregateRequest]) (*connect.Response[orb8v1.AggregateResponse], error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestCompletionWithoutACollector(t *testing.T) {
	for _, agent := range []string{"127.0.0.1:1", serveHandler(t, &deafCollector{})} {
		begin := time.Now()
		offers, directive := completions(t, agent, "flows --pod ")
		assert.Empty(t, offers)
		assert.Equal(t, ":4", directive)
		assert.Less(t, time.Since(begin), 2*completionTimeout)
	}
}
