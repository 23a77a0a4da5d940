//go:build linux

package testbed

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/orb8/orb8/testbed/internal/collector"
	"github.com/orb8/orb8/testbed/internal/lab"
	"github.com/orb8/orb8/testbed/internal/nameserver"
	"github.com/orb8/orb8/testbed/internal/traffic"
)

const (
	typeA   = 1
	typeTXT = 16
)

// dnsTimeout is shorter than the default, so that the test need not wait for that.
const dnsTimeout = time.Second

// What is asked is told to the last record, at both ends, each with its own cgroup, in both attach modes, by UDP and by TCP.
func TestLookupsAreThoseOfTheWire(t *testing.T) {
	address := func(l *lab.Lab) collector.Answer {
		return collector.Answer{Name: nameserver.Host, Type: "A", TTL: 5, Data: l.Server.IPv4.String()}
	}
	text := fmt.Sprintf(`"%[1]s" "%[1]s" "%[1]s"`, nameserver.BigText())
	tests := []struct {
		question nameserver.Question
		want     collector.Lookup
		answers  func(*lab.Lab) []collector.Answer
	}{
		{
			nameserver.Question{Network: "udp4", Name: nameserver.Web, Type: typeA},
			collector.Lookup{Type: "A", RCode: "NOERROR"},
			func(l *lab.Lab) []collector.Answer {
				return []collector.Answer{{Name: nameserver.Web, Type: "CNAME", TTL: 300, Data: nameserver.Host}, address(l)}
			},
		},
		{
			nameserver.Question{Network: "tcp4", Name: nameserver.Host, Type: typeA},
			collector.Lookup{Type: "A", RCode: "NOERROR"},
			func(l *lab.Lab) []collector.Answer { return []collector.Answer{address(l)} },
		},
		{
			nameserver.Question{Network: "udp4", Name: "no-such-name.lab.test", Type: typeA},
			collector.Lookup{Type: "A", RCode: "NXDOMAIN"}, nil,
		},
		{
			nameserver.Question{Network: "udp4", Name: nameserver.Big, Type: typeTXT},
			collector.Lookup{Type: "TXT", RCode: "NOERROR", Truncated: true}, nil,
		},
		{
			nameserver.Question{Network: "tcp4", Name: nameserver.Big, Type: typeTXT},
			collector.Lookup{Type: "TXT", RCode: "NOERROR"},
			func(*lab.Lab) []collector.Answer {
				return []collector.Answer{{Name: nameserver.Big, Type: "TXT", TTL: 60, Data: text}}
			},
		},
		{
			nameserver.Question{Network: "udp4", Name: nameserver.Silence, Type: typeA},
			collector.Lookup{Type: "A", RCode: "timeout"}, nil,
		},
	}
	var questions []nameserver.Question
	for _, tt := range tests {
		questions = append(questions, tt.question)
	}
	for _, mode := range attachModes {
		t.Run(mode, func(t *testing.T) {
			l := lab.New(t, lab.Options{Offloads: true}) // what TCP sends lies in pages
			c := collector.Start(t, collector.Options{Node: l.Agent, Set: fastDNS(), Overlay: watchLab(l, mode)})
			nameserver.Start(t, l.Server)
			nameserver.Ask(t, l.Client, l.Server, questions...)

			var got []collector.Lookup
			collector.Await(t, "every lookup, at both ends", func() bool {
				got = c.Lookups("--name", "*.lab.test")
				return len(got) >= 2*len(tests)
			}, func() any { return got })
			require.Len(t, got, 2*len(tests))
			for _, tt := range tests {
				for direction, local := range map[string]*lab.Node{"egress": l.Client, "ingress": l.Server} {
					i := slices.IndexFunc(got, func(g collector.Lookup) bool {
						return g.Name == tt.question.Name && g.Transport+"4" == tt.question.Network && g.Direction == direction
					})
					require.GreaterOrEqual(t, i, 0, "%s of %+v in %+v", direction, tt.question, got)
					checkLookup(t, l, local, got[i], tt.want, tt.answers)
				}
			}

			failed := c.Lookups("--rcode", "nxdomain", "--direction", "egress")
			require.Len(t, failed, 1)
			assert.Equal(t, "no-such-name.lab.test", failed[0].Name)
			assert.Contains(t, c.Get(c.Prometheus, "/metrics"), `orb8_dns_question_type="TXT",orb8_dns_response_code="NOERROR",orb8_flow_direction="ingress"} 2`)
		})
	}
}

func checkLookup(t *testing.T, l *lab.Lab, local *lab.Node, got, want collector.Lookup, answers func(*lab.Lab) []collector.Answer) {
	t.Helper()
	assert.Equal(t, want.Type, got.Type)
	assert.Equal(t, want.RCode, got.RCode, "%+v", got)
	assert.Equal(t, want.Truncated, got.Truncated, "%+v", got)
	assert.False(t, got.Incomplete)
	assert.EqualValues(t, 1, got.Queries)
	wantAnswers := []collector.Answer{}
	if answers != nil {
		wantAnswers = answers(l)
	}
	assert.Equal(t, wantAnswers, got.Answers)
	assert.Equal(t, l.Client.IPv4.String(), got.Client.Address)
	assert.Equal(t, l.Server.IPv4.String(), got.Server.Address)
	assert.EqualValues(t, nameserver.Port, got.Server.Port)
	end := got.Client
	if got.Direction == "ingress" {
		end = got.Server
	}
	assert.Equal(t, local.Cgroup(), end.Cgroup, "%+v", got)
	least := nameserver.Delay
	if want.RCode == "timeout" {
		least = dnsTimeout
	}
	assert.GreaterOrEqual(t, got.Latency, least.Seconds(), "%+v", got)
	assert.Less(t, got.Latency, 30*dnsTimeout.Seconds(), "%+v", got)
}

// A connection has the name that its own process had asked for, in both directions and however many names the address has; one
// that nobody asked for has none.
func TestConnectionsHaveTheNamesTheyWereLookedUpBy(t *testing.T) {
	for _, mode := range attachModes {
		t.Run(mode, func(t *testing.T) {
			l := lab.New(t, lab.Options{})
			c := collector.Start(t, collector.Options{Node: l.Agent, Set: fastDNS(), Overlay: watchLab(l, mode)})
			nameserver.Start(t, l.Server)
			nameserver.Ask(t, l.Client, l.Server,
				nameserver.Question{Network: "udp4", Name: nameserver.Host, Type: typeA},
				nameserver.Question{Network: "tcp4", Name: nameserver.Web, Type: typeA, Connect: true})
			nameserver.Ask(t, l.Host, l.Server, nameserver.Question{Network: "udp4", Name: nameserver.Host, Type: typeA, Connect: true})
			traffic.Exchange(t, l.Agent, l.Server, traffic.Load{Network: "tcp4", Writes: 1, WriteSize: 10})

			// names are those of the server, by the cgroup that talks to it.
			names := map[string][]string{}
			c.AwaitFlows("both directions of three connections", func(flows []collector.Flow) bool {
				clear(names)
				for _, f := range flows {
					if f.Transport != "tcp" || f.Source.Port == nameserver.Port || f.Destination.Port == nameserver.Port || !f.Ended {
						continue
					}
					peer := f.Destination
					if f.Direction == "ingress" {
						peer = f.Source
					}
					if peer.Address == l.Server.IPv4.String() {
						names[f.Local().Cgroup] = append(names[f.Local().Cgroup], peer.Name)
					}
				}
				return len(names[l.Client.Cgroup()]) == 2 && len(names[l.Host.Cgroup()]) == 2 && len(names[l.Agent.Cgroup()]) == 2
			})
			assert.Equal(t, map[string][]string{
				l.Client.Cgroup(): {nameserver.Web, nameserver.Web},
				l.Host.Cgroup():   {nameserver.Host, nameserver.Host},
				l.Agent.Cgroup():  {"", ""},
			}, names)

			table, _, _ := c.CLI("flows", "--port", fmt.Sprint(nameserver.WebPort))
			assert.Contains(t, table, fmt.Sprintf("%s:%d", nameserver.Web, nameserver.WebPort))
		})
	}
}

func fastDNS() map[string]string {
	set := fast()
	set["receivers.ebpf_network.dns.timeout"] = dnsTimeout.String()
	return set
}
