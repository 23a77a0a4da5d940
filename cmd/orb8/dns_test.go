package main

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

// cannedLookups hold one lookup for each thing that may come of one.
func cannedLookups() []*orb8v1.DnsLookup {
	cart := cannedFlows()[0].GetSource()
	shell := cannedFlows()[3].GetSource()
	coreDNS := &orb8v1.Endpoint{Address: "10.96.0.10", Port: 53}
	answer := func(name, kind string, ttl uint32, data string) *orb8v1.DnsAnswer {
		return &orb8v1.DnsAnswer{Name: name, Type: kind, TtlSeconds: ttl, Data: data}
	}
	in, out := orb8v1.Direction_DIRECTION_INGRESS, orb8v1.Direction_DIRECTION_EGRESS
	return []*orb8v1.DnsLookup{
		{
			Time: ago(1234 * time.Millisecond), Node: "worker-1", Direction: out, Transport: "udp", Client: cart, Server: coreDNS,
			Name: "www.example.com", Type: "A", Rcode: "NOERROR", Latency: durationpb.New(7251 * time.Microsecond), Queries: 1,
			Answers: []*orb8v1.DnsAnswer{
				answer("www.example.com", "CNAME", 300, "web.example.com"), answer("web.example.com", "A", 60, "192.0.2.1"),
				answer("web.example.com", "A", 60, "192.0.2.2"),
			},
		},
		{
			Time: ago(2 * time.Second), Node: "worker-1", Direction: in, Transport: "udp", Interface: "veth1",
			Client: &orb8v1.Endpoint{Address: "10.244.1.17", Port: 45678}, Server: cannedFlows()[2].GetDestination(),
			Name: "www.example.com", Type: "AAAA", Rcode: "NXDOMAIN", Latency: durationpb.New(230 * time.Microsecond), Queries: 1,
		},
		{
			Time: ago(13 * time.Second), Node: "worker-1", Direction: out, Transport: "udp", Client: shell, Server: coreDNS,
			Name: "a-very-long-name-that-does-not-fit.in-any-column.of-eighty-letters.example", Type: "HTTPS", Rcode: "timeout",
			Latency: durationpb.New(10 * time.Second), Queries: 3,
		},
		{
			Time: ago(14 * time.Second), Node: "worker-1", Direction: out, Transport: "tcp", Client: shell, Server: coreDNS,
			Name: "_ldap._tcp.example.com", Type: "SRV", Rcode: "NOERROR", Latency: durationpb.New(1500 * time.Millisecond), Queries: 1,
			Answers:    []*orb8v1.DnsAnswer{answer("_ldap._tcp.example.com", "SRV", 5, "0 100 389 dc1.example.com")},
			Incomplete: true,
		},
		{
			Time: ago(15 * time.Second), Node: "worker-1", Direction: out, Transport: "udp", Client: shell, Server: coreDNS,
			Name: "big.example.com", Type: "TXT", Rcode: "NOERROR", Latency: durationpb.New(time.Millisecond), Queries: 1, Truncated: true,
		},
	}
}

func sendingLookups(_ context.Context, stream *eventStream) error {
	for _, l := range cannedLookups() {
		if err := stream.Send(&orb8v1.StreamEventsResponse{Kind: orb8v1.EventKind_EVENT_KIND_DNS, Time: l.Time, Dns: l}); err != nil {
			return err
		}
	}
	return nil
}

func TestGoldenDNS(t *testing.T) {
	agent := (&fakeCollector{
		dns: &orb8v1.QueryDnsResponse{Lookups: cannedLookups(), Matched: 5}, stream: sendingLookups,
	}).serve(t)
	tests := map[string]struct {
		args []string
		code int
	}{
		"dns.txt":            {[]string{"dns"}, 0},
		"dns_wide.txt":       {[]string{"dns", "-o", "wide"}, 0},
		"dns.json":           {[]string{"dns", "-o", "json"}, 0},
		"dns.csv":            {[]string{"dns", "-o", "csv"}, 0},
		"dns.jsonl":          {[]string{"dns", "-o", "jsonl"}, 0},
		"trace_dns.txt":      {[]string{"trace", "dns"}, exitFailed},
		"trace_dns_wide.txt": {[]string{"trace", "dns", "-o", "wide"}, exitFailed},
		"trace_dns.jsonl":    {[]string{"trace", "dns", "-o", "json"}, exitFailed},
	}
	for golden, tt := range tests {
		t.Run(golden, func(t *testing.T) {
			got := orb8(t, agent, tt.args...)
			assert.Equal(t, tt.code, got.code, got.stderr)
			assertGolden(t, golden, got.stdout)
		})
	}
}

func TestDNSAsks(t *testing.T) {
	tests := map[string]*orb8v1.QueryDnsRequest{
		"":                                {Limit: 100},
		"--limit 7 --since 5m --until 1m": {Limit: 7, Since: ago(5 * time.Minute), Until: ago(time.Minute)},
		"--name *.example.com,db --type A,aaaa --rcode NXDOMAIN --rcode timeout": {Limit: 100, Allow: []*orb8v1.DnsFilter{{
			Names: []string{"*.example.com", "db"}, Types: []string{"A", "aaaa"}, Rcodes: []string{"NXDOMAIN", "timeout"},
		}}},
		"--pod cart --direction out": {Limit: 100, Allow: []*orb8v1.DnsFilter{{
			Flow: &orb8v1.FlowFilter{Pods: []string{"cart"}, Directions: []orb8v1.Direction{orb8v1.Direction_DIRECTION_EGRESS}},
		}}},
		"--from shop/,10.0.0.0/8 --rcode timeout --not --name *.local": {
			Limit: 100,
			Allow: []*orb8v1.DnsFilter{
				{Flow: &orb8v1.FlowFilter{Source: &orb8v1.EndpointFilter{Namespaces: []string{"shop"}}}, Rcodes: []string{"timeout"}},
				{Flow: &orb8v1.FlowFilter{Source: &orb8v1.EndpointFilter{Ips: []string{"10.0.0.0/8"}}}, Rcodes: []string{"timeout"}},
			},
			Deny: []*orb8v1.DnsFilter{{Names: []string{"*.local"}}},
		},
	}
	for args, want := range tests {
		t.Run(args, func(t *testing.T) {
			collector := &fakeCollector{dns: &orb8v1.QueryDnsResponse{}}
			got := orb8(t, collector.serve(t), append([]string{"dns"}, strings.Fields(args)...)...)
			require.Zero(t, got.code, got.stderr)
			assert.True(t, proto.Equal(want, collector.askedDNS), "want %v, got %v", want, collector.askedDNS)
		})
	}
}

func TestTraceDNSAsks(t *testing.T) {
	collector := &fakeCollector{stream: sendingLookups}
	orb8(t, collector.serve(t), "trace", "dns", "--name", "db", "--port", "5353", "--not", "--rcode", "NOERROR")
	want := &orb8v1.StreamEventsRequest{
		Kinds: []orb8v1.EventKind{orb8v1.EventKind_EVENT_KIND_DNS},
		Dns:   []*orb8v1.DnsFilter{{Names: []string{"db"}, Flow: &orb8v1.FlowFilter{Ports: []uint32{5353}}}},

		DenyDns: []*orb8v1.DnsFilter{{Rcodes: []string{"NOERROR"}}},
	}
	assert.True(t, proto.Equal(want, collector.streamed), "want %v, got %v", want, collector.streamed)
}

func TestDNSRefuses(t *testing.T) {
	for args, says := range map[string]string{
		"dns --rcode NX-DOMAIN":     `invalid argument "NX-DOMAIN" for "--rcode" flag: use letters and digits, such as AAAA or NXDOMAIN`,
		"dns --type A,":             `"--type" flag: use letters and digits`,
		"dns --name ,":              `"--name" flag: a name must not be empty`,
		"dns --since 1m --until 5m": "--since (2026-03-04T15:05:07.000000000Z) is not before --until",
		"dns --outcome refused":     "unknown flag: --outcome",
		"dns www.example.com":       `"orb8 dns" takes no argument, not "www.example.com"`,
		"trace dns --since 5m":      "unknown flag: --since",
		"trace dns --output yaml":   "use table, wide, json, jsonl or csv",
	} {
		t.Run(args, func(t *testing.T) {
			got := orb8(t, "127.0.0.1:1", strings.Fields(args)...)
			assert.Equal(t, exitUsage, got.code)
			assert.Contains(t, got.stderr, says)
			assert.Equal(t, 1, strings.Count(got.stderr, "\n"), "one line: %s", got.stderr)
		})
	}
}

func TestDNSSaysWhatTheRowsDoNot(t *testing.T) {
	tests := map[string]struct {
		reply *orb8v1.QueryDnsResponse
		want  string
	}{
		"nothing": {&orb8v1.QueryDnsResponse{}, "orb8: no lookup matches\n"},
		"all of it": {
			&orb8v1.QueryDnsResponse{
				Lookups: cannedLookups(), Matched: 54321, Truncated: true, MissingNodes: []string{"worker-2"},
				Lost: &orb8v1.Loss{Packets: 9, Bytes: 9, Events: 2, EvictedRecords: 512},
			},
			"orb8: 5 of 54,321 lookups shown; the collector gives no more at once, so narrow the filters or the time range\n" +
				"orb8: lost 2 events in this range: the ring buffer was full; lookups may be missing\n" +
				"orb8: the store was full and dropped 512 records of this range early\n" +
				"orb8: no report from worker-2: their lookups are missing\n",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			agent := (&fakeCollector{dns: tt.reply}).serve(t)
			assert.Equal(t, tt.want, orb8(t, agent, "dns").stderr)
			data := orb8(t, agent, "dns", "-o", "json")
			assert.Equal(t, tt.want, data.stderr)
			var rows []map[string]any
			require.NoError(t, json.Unmarshal([]byte(data.stdout), &rows))
			assert.Len(t, rows, len(tt.reply.Lookups))
		})
	}
}

// Names come from whoever asks and answers: whatever they hold, a line fits the terminal and does nothing to it.
func TestDNSLinesFit(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	letters := []rune("abc.-_é世\x1b\t")
	text := func(n int) string {
		s := make([]rune, rnd.IntN(n))
		for i := range s {
			s[i] = letters[rnd.IntN(len(letters))]
		}
		return string(s)
	}
	for range 300 {
		l := cannedLookups()[rnd.IntN(5)]
		l.Name, l.Type, l.Rcode = text(255), "TYPE65535", "RCODE4095"
		l.Client = &orb8v1.Endpoint{Pod: text(80), Address: "2001:db8:85a3:8d3:1319:8a2e:370:7348"}
		l.Answers = append(l.Answers, &orb8v1.DnsAnswer{Type: "TXT", Data: text(300)})
		var out strings.Builder
		rows := []row{lookupRow(l)}
		require.NoError(t, writeTable(&out, rows, lookupColumns(rows, testNow())))
		for line := range strings.Lines(out.String()) {
			require.LessOrEqual(t, utf8.RuneCountInString(strings.TrimSuffix(line, "\n")), defaultWidth, line)
			require.NotContains(t, line, "\x1b")
		}
	}
}

func TestAPeerIsShownByTheNameItWasLookedUpBy(t *testing.T) {
	flows := cannedFlows()[3:4]
	flows[0].Destination.Name = "www.example.com"
	agent := (&fakeCollector{flows: &orb8v1.QueryFlowsResponse{Flows: flows, Matched: 1}}).serve(t)
	assert.Contains(t, orb8(t, agent, "flows").stdout, "www.example.com:443")
	assert.Contains(t, orb8(t, agent, "flows", "-o", "wide").stdout, "www.example.com")
	assert.Contains(t, orb8(t, agent, "flows", "-o", "json").stdout, `"destination":{"address":"93.184.216.134","port":443,"name":"www.example.com"}`)
}
