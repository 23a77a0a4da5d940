package dns

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/orb8/orb8/internal/flow"
)

var (
	cart, shop = Asker{CgroupID: 7}, Asker{CgroupID: 8}
	web        = netip.MustParseAddr("192.0.2.1")
)

func answer(name, kind string, ttl time.Duration, data string) flow.Answer {
	return flow.Answer{Name: name, Type: kind, TTL: ttl, Data: data}
}

func TestNamesFollowAliases(t *testing.T) {
	tests := map[string]struct {
		answers []flow.Answer
		want    string
	}{
		"an address":       {[]flow.Answer{answer("www.example.com", "A", time.Minute, "192.0.2.1")}, "www.example.com"},
		"in other letters": {[]flow.Answer{answer("WWW.Example.COM", "A", time.Minute, "192.0.2.1")}, "www.example.com"},
		"the name asked for, not its alias": {[]flow.Answer{
			answer("www.example.com", "CNAME", time.Minute, "Web.cdn.example"),
			answer("web.cdn.example", "CNAME", time.Minute, "eu.cdn.example"),
			answer("eu.cdn.example", "A", time.Minute, "192.0.2.1"),
		}, "www.example.com"},
		"aliases in any order": {[]flow.Answer{
			answer("eu.cdn.example", "A", time.Minute, "192.0.2.1"),
			answer("web.cdn.example", "CNAME", time.Minute, "eu.cdn.example"),
			answer("www.example.com", "CNAME", time.Minute, "web.cdn.example"),
		}, "www.example.com"},
		"a circle": {[]flow.Answer{
			answer("www.example.com", "CNAME", time.Minute, "web.example.com"),
			answer("web.example.com", "CNAME", time.Minute, "www.example.com"),
			answer("web.example.com", "A", time.Minute, "192.0.2.1"),
		}, "www.example.com"},
		"what was not asked for": {[]flow.Answer{answer("bank.example", "A", time.Minute, "192.0.2.1")}, ""},
		"another type":           {[]flow.Answer{answer("www.example.com", "TXT", time.Minute, "192.0.2.1")}, ""},
		"no address":             {[]flow.Answer{answer("www.example.com", "A", time.Minute, "web")}, ""},
		"nothing":                {nil, ""},
		"IPv4 in IPv6":           {[]flow.Answer{answer("www.example.com", "AAAA", time.Minute, "::ffff:192.0.2.1")}, "www.example.com"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			n := newNames()
			n.learn(cart, "www.example.com", tt.answers, at(0))
			assert.Equal(t, tt.want, n.lookup(cart, web, at(time.Second)))
			assert.Empty(t, n.lookup(shop, web, at(time.Second)), "another container did not ask")
		})
	}
}

func TestNamesLastAsLongAsTheirTTL(t *testing.T) {
	tests := map[string]struct{ ttl, lasts time.Duration }{
		"long":                   {5 * time.Minute, 5 * time.Minute},
		"shorter than it counts": {time.Second, minTTL},
		"not to be kept":         {0, minTTL},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			n := newNames()
			n.learn(cart, "www.example.com", []flow.Answer{answer("www.example.com", "A", tt.ttl, "192.0.2.1")}, at(0))
			assert.Empty(t, n.lookup(cart, web, at(-1)), "before the answer")
			assert.NotEmpty(t, n.lookup(cart, web, at(0)))
			assert.NotEmpty(t, n.lookup(cart, web, at(tt.lasts)))
			assert.Empty(t, n.lookup(cart, web, at(tt.lasts+1)))
		})
	}
}

// A flow is told of an interval after it began: another name of the same address may have been looked up since.
func TestTheNameIsThatOfTheTime(t *testing.T) {
	n := newNames()
	learn := func(name string, when time.Duration) {
		n.learn(cart, name, []flow.Answer{answer(name, "A", time.Minute, "192.0.2.1")}, at(when))
	}
	learn("a.example", 0)
	learn("b.example", 10*time.Second)
	assert.Equal(t, "a.example", n.lookup(cart, web, at(9*time.Second)))
	assert.Equal(t, "b.example", n.lookup(cart, web, at(10*time.Second)))
	for range maxSpells {
		learn("c.example", 20*time.Second)
	}
	assert.Equal(t, "c.example", n.lookup(cart, web, at(20*time.Second)))
	assert.Empty(t, n.lookup(cart, web, at(9*time.Second)), "only the latest are kept")
}

func TestNamesAreBounded(t *testing.T) {
	n := newNames()
	name := []flow.Answer{answer("www.example.com", "A", time.Hour, "192.0.2.1")}
	n.learn(cart, "www.example.com", name, at(0))
	for i := range maxNames - 1 {
		n.learn(Asker{CgroupID: uint64(100 + i)}, "www.example.com", name, at(0))
	}
	assert.NotEmpty(t, n.lookup(cart, web, at(0)))
	n.learn(Asker{CgroupID: 99}, "www.example.com", name, at(0))
	assert.Equal(t, maxNames, n.spells.Len())
	assert.NotEmpty(t, n.lookup(cart, web, at(0)), "what is used stays")
	assert.Empty(t, n.lookup(Asker{CgroupID: 100}, web, at(0)), "what was used longest ago goes")
}

func BenchmarkName(b *testing.B) {
	w := newWatcher()
	w.names.learn(cart, "www.example.com", []flow.Answer{answer("www.example.com", "A", time.Hour, "192.0.2.1")}, at(0))
	b.ReportAllocs()
	for b.Loop() {
		w.Name(cart, web, at(0))
	}
}
