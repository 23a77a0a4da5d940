package dns

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/orb8/orb8/internal/flow"
)

const timeout = 5 * time.Second

var (
	client = netip.MustParseAddrPort("10.0.0.1:40000")
	server = netip.MustParseAddrPort("10.0.0.53:53")
)

func name(s string) dnsmessage.Name { return dnsmessage.MustNewName(s) }

func ask(s string, t dnsmessage.Type) dnsmessage.Question {
	return dnsmessage.Question{Name: name(s), Type: t, Class: dnsmessage.ClassINET}
}

func header(s string, ttl uint32) dnsmessage.ResourceHeader {
	return dnsmessage.ResourceHeader{Name: name(s), Class: dnsmessage.ClassINET, TTL: ttl}
}

func a(s string, ttl uint32, addr string) dnsmessage.Resource {
	return dnsmessage.Resource{Header: header(s, ttl), Body: &dnsmessage.AResource{A: netip.MustParseAddr(addr).As4()}}
}

func cname(s string, ttl uint32, target string) dnsmessage.Resource {
	return dnsmessage.Resource{Header: header(s, ttl), Body: &dnsmessage.CNAMEResource{CNAME: name(target)}}
}

func pack(t testing.TB, m dnsmessage.Message) []byte {
	t.Helper()
	b, err := m.Pack()
	require.NoError(t, err)
	return b
}

func queryOf(t testing.TB, id uint16, q dnsmessage.Question) []byte {
	t.Helper()
	return pack(t, dnsmessage.Message{
		Header: dnsmessage.Header{ID: id, RecursionDesired: true}, Questions: []dnsmessage.Question{q},
	})
}

func responseTo(t testing.TB, id uint16, q dnsmessage.Question, rcode dnsmessage.RCode, answers ...dnsmessage.Resource) []byte {
	t.Helper()
	return pack(t, dnsmessage.Message{
		Header:    dnsmessage.Header{ID: id, Response: true, RCode: rcode},
		Questions: []dnsmessage.Question{q}, Answers: answers,
	})
}

// prefixed is messages as a TCP stream has them.
func prefixed(messages ...[]byte) []byte {
	var out []byte
	for _, m := range messages {
		out = append(binary.BigEndian.AppendUint16(out, uint16(len(m))), m...)
	}
	return out
}

func at(d time.Duration) int64 { return int64(time.Hour + d) }

// newWatcher returns a watcher whose wall clock began an hour before at(0).
func newWatcher() *Watcher {
	return New(timeout, func(ns int64) time.Time { return time.Unix(0, ns).UTC() })
}

// sent is a UDP packet from client to server at the client's socket, received one back.
func sent(when time.Duration, payload []byte) *Packet {
	return &Packet{
		Time: at(when), Direction: flow.Egress, Transport: flow.UDP, Source: client, Destination: server, Scope: 7,
		Asker: Asker{CgroupID: 7}, Local: flow.Identity{CgroupID: 7, Process: "curl", PID: 42},
		Length: len(payload), Payload: payload,
	}
}

func received(when time.Duration, payload []byte) *Packet {
	p := sent(when, payload)
	p.Direction, p.Source, p.Destination = flow.Ingress, server, client
	return p
}

// with returns a changed copy of a packet.
func with(p *Packet, change func(*Packet)) *Packet {
	changed := *p
	change(&changed)
	return &changed
}
