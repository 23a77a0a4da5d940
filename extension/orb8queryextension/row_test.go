package orb8queryextension

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/storage"
)

// view is one end's view of a direction of a connection.
func view(node string, d flow.Direction, initiator flow.Initiator, from, to string, local flow.Identity) flow.Record {
	r := flow.Record{
		Node: node, Direction: d, Initiator: initiator, Transport: flow.TCP, Bytes: 100, Packets: 2,
		Source:      flow.Endpoint{Addr: netip.MustParseAddrPort(from)},
		Destination: flow.Endpoint{Addr: netip.MustParseAddrPort(to)},
	}
	r.Local().Identity = local
	return r
}

func TestRowOfBothEnds(t *testing.T) {
	client, server := flow.Identity{CgroupID: 1, Pod: "web-0"}, flow.Identity{CgroupID: 2, Pod: "cart-0"}
	const real, nat, service, backend = "10.0.0.1:40000", "192.168.0.1:50000", "10.96.0.10:80", "10.0.0.2:8080"
	toServer, toClient := flow.InitiatorSource, flow.InitiatorDestination
	tests := map[string]struct {
		row, other          flow.Record
		source, destination string // pods
		backend, origin     string // pod and address
	}{
		"client's request to a service": {
			row:    view("a", flow.Egress, toServer, real, service, client),
			other:  view("b", flow.Ingress, toServer, nat, backend, server),
			source: "web-0", backend: "cart-0 10.0.0.2",
		},
		"the answer at the client": {
			row:         view("a", flow.Ingress, toClient, service, real, client),
			other:       view("b", flow.Egress, toClient, backend, nat, server),
			destination: "web-0", backend: "cart-0 10.0.0.2",
		},
		"the request at the server": {
			row:         view("b", flow.Ingress, toServer, nat, backend, server),
			other:       view("a", flow.Egress, toServer, real, service, client),
			destination: "cart-0", origin: "web-0 10.0.0.1",
		},
		"the answer at the server": {
			row:    view("b", flow.Egress, toClient, backend, nat, server),
			other:  view("a", flow.Ingress, toClient, service, real, client),
			source: "cart-0", origin: "web-0 10.0.0.1",
		},
		"nothing translated": {
			row:    view("a", flow.Egress, toServer, real, backend, client),
			other:  view("b", flow.Ingress, toServer, real, backend, server),
			source: "web-0", destination: "cart-0",
		},
		"datagrams": {
			row:    view("a", flow.Egress, flow.InitiatorUnknown, real, backend, client),
			other:  view("a", flow.Ingress, flow.InitiatorUnknown, real, backend, server),
			source: "web-0", destination: "cart-0",
		},
	}
	describe := func(e *orb8v1.Endpoint) string {
		if e == nil {
			return ""
		}
		return e.GetPod() + " " + e.GetAddress()
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			m := rowMessage(&storage.Flow{Record: tt.row, Other: &tt.other}, nil)
			assert.Equal(t, tt.source, m.GetSource().GetPod())
			assert.Equal(t, tt.destination, m.GetDestination().GetPod())
			assert.Equal(t, tt.backend, describe(m.GetBackend()))
			assert.Equal(t, tt.origin, describe(m.GetOrigin()))
			assert.Equal(t, tt.row.Source.Addr.Addr().String(), m.GetSource().GetAddress(), "addresses are the end's own")
			assert.Equal(t, tt.other.Node, m.GetOtherEnd().GetNode())
		})
	}
}

func TestRowKeepsWhatItsOwnEndKnows(t *testing.T) {
	row := view("a", flow.Egress, flow.InitiatorSource, "10.0.0.1:1", "10.0.0.2:2", flow.Identity{Pod: "web-0"})
	row.Destination.Identity = flow.Identity{Pod: "as the client knows it"}
	row.SRTT, row.Retransmits, row.Handshake = time.Second, 3, time.Millisecond
	other := view("b", flow.Ingress, flow.InitiatorSource, "10.0.0.1:1", "10.0.0.2:2", flow.Identity{Pod: "cart-0"})
	other.SRTT, other.MinRTT, other.Retransmits, other.ZeroWindows = time.Minute, time.Hour, 99, 4
	other.Handshake, other.Outcome, other.Bytes, other.Packets = time.Minute, flow.OutcomeReset, 90, 1

	m := rowMessage(&storage.Flow{Record: row, Other: &other}, nil)
	assert.Equal(t, "as the client knows it", m.GetDestination().GetPod())
	assert.Equal(t, durationpb.New(time.Second), m.GetSrtt())
	assert.EqualValues(t, 3, m.GetRetransmits())
	assert.Equal(t, durationpb.New(time.Hour), m.GetMinRtt(), "the far socket's, where the near one has none")
	assert.EqualValues(t, 4, m.GetZeroWindows())
	assert.Equal(t, "reset", m.GetOutcome())
	assert.Equal(t, durationpb.New(time.Millisecond), m.GetHandshake(), "it is another thing at the other end")
	assert.EqualValues(t, 100, m.GetBytes())
	assert.EqualValues(t, 2, m.GetPackets())
	assert.EqualValues(t, 90, m.GetOtherEnd().GetBytes())
	assert.EqualValues(t, 1, m.GetOtherEnd().GetPackets())
	assert.Zero(t, row.MinRTT, "the stored record is left alone")
}

// A cgroup says more of its own end than an address says of its peer.
func TestPeerIdentity(t *testing.T) {
	node, byAddress := flow.Identity{KubernetesNode: "node-b"}, flow.Identity{PodUID: "uid", Pod: "cart-0", Service: "cart", KubernetesNode: "node-b"}
	byCgroup := flow.Identity{CgroupID: 7, PodUID: "uid", Pod: "cart-0", Process: "cart"}
	for name, tt := range map[string]struct{ here, there, want flow.Identity }{
		"nothing here":      {there: byCgroup, want: byCgroup},
		"nothing there":     {here: byAddress, want: byAddress},
		"no cgroup there":   {here: byAddress, there: flow.Identity{Pod: "guess"}, want: byAddress},
		"host network here": {here: node, there: byCgroup, want: flow.Identity{CgroupID: 7, PodUID: "uid", Pod: "cart-0", Process: "cart", KubernetesNode: "node-b"}},
		"both": {
			here: byAddress, there: byCgroup,
			want: flow.Identity{CgroupID: 7, PodUID: "uid", Pod: "cart-0", Process: "cart", Service: "cart", KubernetesNode: "node-b"},
		},
		"another pod than the address says": {
			here: byAddress, there: flow.Identity{CgroupID: 7, PodUID: "other"},
			want: flow.Identity{CgroupID: 7, PodUID: "other", Service: "cart", KubernetesNode: "node-b"},
		},
		"the same pod without names there": {here: byAddress, there: flow.Identity{CgroupID: 7, PodUID: "uid"}, want: byAddress},
	} {
		t.Run(name, func(t *testing.T) { assert.Equal(t, tt.want, peerIdentity(&tt.here, &tt.there)) })
	}
}

func TestOutcomeOfBothEnds(t *testing.T) {
	row := view("a", flow.Egress, flow.InitiatorUnknown, "10.0.0.1:1", "10.0.0.2:2", flow.Identity{})
	other := view("a", flow.Ingress, flow.InitiatorUnknown, "10.0.0.1:1", "10.0.0.2:2", flow.Identity{})
	for _, tt := range []struct{ near, far, want flow.Outcome }{
		{flow.OutcomeReset, flow.OutcomeRefused, flow.OutcomeRefused},
		{flow.OutcomeRefused, flow.OutcomeReset, flow.OutcomeRefused},
		{flow.OutcomeUnknown, flow.OutcomeClosed, flow.OutcomeClosed},
		{flow.OutcomeClosed, flow.OutcomeReset, flow.OutcomeReset},
		{flow.OutcomeClosed, flow.OutcomeUnknown, flow.OutcomeClosed},
	} {
		row.Outcome, other.Outcome = tt.near, tt.far
		assert.Equal(t, tt.want.String(), rowMessage(&storage.Flow{Record: row, Other: &other}, nil).GetOutcome(), "%v", tt)
	}
}

func TestRowOfOneEnd(t *testing.T) {
	row := view("a", flow.Egress, flow.InitiatorSource, "10.0.0.1:1", "10.0.0.2:2", flow.Identity{Pod: "web-0"})
	m := rowMessage(&storage.Flow{Record: row}, nil)
	assert.Nil(t, m.GetOtherEnd())
	assert.Nil(t, m.GetBackend())
	assert.Nil(t, m.GetOrigin())
	assert.Nil(t, m.GetSrtt(), "not known is not nought")
	assert.Equal(t, orb8v1.Initiator_INITIATOR_SOURCE, m.GetInitiator())
}

func TestJoiningIsAskedFor(t *testing.T) {
	query, err := parseQuery(&orb8v1.QueryFlowsRequest{
		SeparateEnds: true, Allow: []*orb8v1.FlowFilter{{Outcomes: []string{"refused", "timeout"}}},
	}, limits{rows: 10})
	require.NoError(t, err)
	assert.True(t, query.SeparateEnds)
	assert.Equal(t, []flow.Outcome{flow.OutcomeRefused, flow.OutcomeTimeout}, query.Selection.Allow[0].Outcomes)

	query, err = parseQuery(&orb8v1.QueryFlowsRequest{}, limits{rows: 10})
	require.NoError(t, err)
	assert.False(t, query.SeparateEnds)

	for outcome, says := range map[string]string{
		"":     "allow[0]: outcomes[0]: must not be empty",
		"lost": `allow[0]: outcomes[0]: outcome "lost": use closed, reset, refused or timeout`,
	} {
		_, err = parseQuery(&orb8v1.QueryFlowsRequest{Allow: []*orb8v1.FlowFilter{{Outcomes: []string{outcome}}}}, limits{rows: 10})
		assert.EqualError(t, err, says)
	}
}

func TestInitiatorsHaveTheSameNumbers(t *testing.T) {
	assert.Len(t, orb8v1.Initiator_name, 3)
	assert.EqualValues(t, flow.InitiatorUnknown, orb8v1.Initiator_INITIATOR_UNSPECIFIED)
	assert.EqualValues(t, flow.InitiatorSource, orb8v1.Initiator_INITIATOR_SOURCE)
	assert.EqualValues(t, flow.InitiatorDestination, orb8v1.Initiator_INITIATOR_DESTINATION)
}
