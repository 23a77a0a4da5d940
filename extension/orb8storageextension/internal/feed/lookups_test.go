package feed

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/storage"
)

func lookup(name string) flow.Lookup {
	return flow.Lookup{
		Direction: flow.Egress, Transport: flow.UDP, Name: name, Type: "A", RCode: "NOERROR",
		Client: flow.Endpoint{Addr: netip.MustParseAddrPort("10.0.0.1:40000")},
		Server: flow.Endpoint{Addr: netip.MustParseAddrPort("10.0.0.53:53")},
	}
}

func TestLookups(t *testing.T) {
	var f Feed
	all := f.Subscribe(storage.EventSelection{})
	defer all.Close()
	named := f.Subscribe(storage.EventSelection{Lookups: storage.LookupSelection{Allow: []storage.LookupFilter{{Names: []string{"b.*"}}}}})
	defer named.Close()
	elsewhere := f.Subscribe(storage.EventSelection{Flows: storage.Selection{Allow: []storage.Filter{{Ports: []uint16{5353}}}}})
	defer elsewhere.Close()
	flows := f.Subscribe(storage.EventSelection{Kinds: []storage.EventKind{storage.EventKind(flow.EventFlow)}})
	defer flows.Close()

	batch := []flow.Lookup{lookup("a.example"), lookup("b.example")}
	f.PublishLookups(batch)
	f.PublishFlows([]flow.Record{record(1)})
	batch[1].Name = "used again"

	for _, name := range []string{"a.example", "b.example"} {
		want := lookup(name)
		got, _ := next(t, all)
		assert.Equal(t, flow.Event{Kind: flow.EventDNS, Record: want.Record(), Lookup: &want}, got)
	}
	got, _ := next(t, named)
	assert.Equal(t, "b.example", got.Lookup.Name)
	got, _ = next(t, named)
	assert.Equal(t, flow.EventFlow, got.Kind, "what chooses lookups says nothing of flows")
	requireNone(t, elsewhere)
	got, _ = next(t, flows)
	assert.Equal(t, flow.EventFlow, got.Kind)
	requireNone(t, flows)
}
