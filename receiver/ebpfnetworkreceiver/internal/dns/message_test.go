package dns

import (
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/orb8/orb8/internal/flow"
)

func TestAnswersAsInAZoneFile(t *testing.T) {
	resource := func(body dnsmessage.ResourceBody) dnsmessage.Resource {
		return dnsmessage.Resource{Header: header("Example.com.", 60), Body: body}
	}
	tests := map[string]struct {
		body dnsmessage.ResourceBody
		kind string
		data string
	}{
		"A":       {&dnsmessage.AResource{A: [4]byte{192, 0, 2, 1}}, "A", "192.0.2.1"},
		"AAAA":    {&dnsmessage.AAAAResource{AAAA: [16]byte{0: 0x20, 1: 1, 2: 0xd, 3: 0xb8, 15: 1}}, "AAAA", "2001:db8::1"},
		"CNAME":   {&dnsmessage.CNAMEResource{CNAME: name("web.example.com.")}, "CNAME", "web.example.com"},
		"NS":      {&dnsmessage.NSResource{NS: name("ns1.example.com.")}, "NS", "ns1.example.com"},
		"PTR":     {&dnsmessage.PTRResource{PTR: name("host.example.com.")}, "PTR", "host.example.com"},
		"MX":      {&dnsmessage.MXResource{Pref: 10, MX: name("mail.example.com.")}, "MX", "10 mail.example.com"},
		"null MX": {&dnsmessage.MXResource{MX: name(".")}, "MX", "0 ."},
		"SRV":     {&dnsmessage.SRVResource{Priority: 1, Weight: 2, Port: 443, Target: name("a.example.com.")}, "SRV", "1 2 443 a.example.com"},
		"TXT":     {&dnsmessage.TXTResource{TXT: []string{"v=spf1 -all", `say "hi"\` + "\n\x1b"}}, "TXT", `"v=spf1 -all" "say \"hi\"\\\010\027"`},
		"SOA": {
			&dnsmessage.SOAResource{NS: name("ns1.example.com."), MBox: name("root.example.com."), Serial: 1, Refresh: 2, Retry: 3, Expire: 4, MinTTL: 5},
			"SOA", "ns1.example.com root.example.com 1 2 3 4 5",
		},
		"unknown": {&dnsmessage.UnknownResource{Type: 61, Data: []byte{1, 0xfe}}, "TYPE61", `\# 2 01fe`},
		"empty":   {&dnsmessage.UnknownResource{Type: 257}, "CAA", `\# 0 `},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			m, err := parse(responseTo(t, 9, ask("example.com.", dnsmessage.TypeALL), 0, resource(tt.body)), true)
			require.NoError(t, err)
			want := flow.Answer{Name: "Example.com", Type: tt.kind, TTL: time.Minute, Data: tt.data}
			require.Equal(t, []flow.Answer{want}, m.answers)
			back, err := flow.ParseAnswer(m.answers[0].String())
			require.NoError(t, err)
			assert.Equal(t, want, back)
		})
	}
}

func TestMessages(t *testing.T) {
	q := ask("WWW.Example.com.", dnsmessage.TypeA)
	asked := question{"www.example.com", dnsmessage.TypeA, dnsmessage.ClassINET}
	withEDNS := func(rcode dnsmessage.RCode) []byte {
		var opt dnsmessage.ResourceHeader
		require.NoError(t, opt.SetEDNS0(1232, rcode, false))
		return pack(t, dnsmessage.Message{
			Header:      dnsmessage.Header{ID: 1, Response: true, RCode: rcode & 0xf},
			Questions:   []dnsmessage.Question{q},
			Authorities: []dnsmessage.Resource{{Header: header("example.com.", 1), Body: &dnsmessage.NSResource{NS: name("ns.example.com.")}}},
			Additionals: []dnsmessage.Resource{a("ns.example.com.", 1, "192.0.2.53"), {Header: opt, Body: &dnsmessage.OPTResource{}}},
		})
	}
	tests := map[string]struct {
		b    []byte
		want message
	}{
		"query":          {queryOf(t, 1, q), message{id: 1, asked: true, question: asked, name: "WWW.Example.com"}},
		"root":           {queryOf(t, 2, ask(".", dnsmessage.TypeNS)), message{id: 2, asked: true, question: question{".", 2, 1}, name: "."}},
		"no such name":   {responseTo(t, 1, q, dnsmessage.RCodeNameError), message{id: 1, response: true, asked: true, question: asked, name: "WWW.Example.com", rcode: "NXDOMAIN"}},
		"extended rcode": {withEDNS(16), message{id: 1, response: true, asked: true, question: asked, name: "WWW.Example.com", rcode: "BADVERS"}},
		"EDNS":           {withEDNS(0), message{id: 1, response: true, asked: true, question: asked, name: "WWW.Example.com", rcode: "NOERROR"}},
		"unknown rcode":  {responseTo(t, 1, q, 12), message{id: 1, response: true, asked: true, question: asked, name: "WWW.Example.com", rcode: "RCODE12"}},
		"without the question": {
			pack(t, dnsmessage.Message{Header: dnsmessage.Header{ID: 3, Response: true, RCode: dnsmessage.RCodeFormatError}}),
			message{id: 3, response: true, rcode: "FORMERR"},
		},
		"truncated": {
			pack(t, dnsmessage.Message{Header: dnsmessage.Header{ID: 1, Response: true, Truncated: true}, Questions: []dnsmessage.Question{q}}),
			message{id: 1, response: true, truncated: true, asked: true, question: asked, name: "WWW.Example.com", rcode: "NOERROR"},
		},
		"bytes that are no letters": {
			queryOf(t, 1, ask("a b\\\x1b\xff.", dnsmessage.TypeTXT)),
			message{id: 1, asked: true, question: question{`a\032b\\\027\255`, dnsmessage.TypeTXT, 1}, name: `a\032b\\\027\255`},
		},
		"a TTL that is no number": {
			responseTo(t, 1, q, 0, a("www.example.com.", 1<<31, "192.0.2.1")),
			message{id: 1, response: true, asked: true, question: asked, name: "WWW.Example.com", rcode: "NOERROR",
				answers: []flow.Answer{{Name: "www.example.com", Type: "A", Data: "192.0.2.1"}}},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := parse(tt.b, true)
			require.NoError(t, err)
			assert.Equal(t, tt.want, got)
		})
	}
}

func TestUpdatesAreNoLookups(t *testing.T) {
	b := pack(t, dnsmessage.Message{Header: dnsmessage.Header{OpCode: 5}, Questions: []dnsmessage.Question{ask("example.com.", dnsmessage.TypeSOA)}})
	_, err := parse(b, true)
	assert.ErrorIs(t, err, errNoLookup)
}

// Of a message that is cut off, everything before the cut is told; of one that is whole, a cut is an error.
func TestCutOff(t *testing.T) {
	q := ask("www.example.com.", dnsmessage.TypeA)
	b := responseTo(t, 1, q, 0, a("www.example.com.", 60, "192.0.2.1"), a("www.example.com.", 60, "192.0.2.2"))
	asked := len(queryOf(t, 1, q))
	one := len(responseTo(t, 1, q, 0, a("www.example.com.", 60, "192.0.2.1")))
	for n := range b {
		_, err := parse(b[:n], true)
		require.Error(t, err, "%d bytes of %d", n, len(b))
		m, err := parse(b[:n], false)
		switch {
		case n < asked:
			require.Error(t, err, "%d bytes", n)
		case n < one:
			require.NoError(t, err)
			require.Empty(t, m.answers, "%d bytes", n)
		default:
			require.NoError(t, err)
			require.Len(t, m.answers, 1, "%d bytes", n)
		}
		if err == nil {
			assert.True(t, m.incomplete)
			assert.Equal(t, "NOERROR", m.rcode)
		}
	}
	m, err := parse(b, true)
	require.NoError(t, err)
	assert.Len(t, m.answers, 2)
	assert.False(t, m.incomplete)
}

func FuzzParse(f *testing.F) {
	q := ask("www.example.com.", dnsmessage.TypeA)
	f.Add(queryOf(f, 1, q), true)
	f.Add(responseTo(f, 1, q, 0, cname("www.example.com.", 60, "web.example.com."), a("web.example.com.", 60, "192.0.2.1")), true)
	f.Add(responseTo(f, 1, q, 3)[:20], false)
	f.Add([]byte{0, 1, 0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0, 12, 0, 1, 0, 1}, true) // a name that points at itself
	f.Fuzz(func(t *testing.T, b []byte, whole bool) {
		m, err := parse(b, whole)
		if err != nil {
			assert.Zero(t, m)
			return
		}
		text := m.name + m.rcode
		for i := range m.answers {
			line := m.answers[i].String()
			back, err := flow.ParseAnswer(line)
			require.NoError(t, err)
			require.Equal(t, m.answers[i], back)
			text += line
		}
		// What strangers send ends on a terminal and in one line of a file.
		require.Equal(t, -1, strings.IndexFunc(text, func(r rune) bool { return r > unicode.MaxASCII || !unicode.IsPrint(r) }), "%q", text)
		require.Equal(t, m.response, m.rcode != "")
	})
}

func BenchmarkParse(b *testing.B) {
	response := responseTo(b, 1, ask("www.example.com.", dnsmessage.TypeA), 0,
		cname("www.example.com.", 60, "web.example.com."), a("web.example.com.", 60, "192.0.2.1"))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := parse(response, true); err != nil {
			b.Fatal(err)
		}
	}
}
