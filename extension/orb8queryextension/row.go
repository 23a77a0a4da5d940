package orb8queryextension

import (
	"cmp"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/storage"
)

// rowMessage is a flow with what only the other end knows: who is there, the address behind a translated one, the health
// of the socket that sends from there, and what it counted.
func rowMessage(f *storage.Flow, labels labelSets) *orb8v1.Flow {
	far := f.Other
	if far == nil {
		return flowMessage(&f.Record, labels)
	}
	r := f.Record
	r.SRTT, r.MinRTT = cmp.Or(r.SRTT, far.SRTT), cmp.Or(r.MinRTT, far.MinRTT)
	r.Retransmits, r.ZeroWindows = cmp.Or(r.Retransmits, far.Retransmits), cmp.Or(r.ZeroWindows, far.ZeroWindows)
	// The graver outcome: an end that saw less of the connection knows a reset where the other knows a refusal.
	r.Outcome, r.Initiator = max(r.Outcome, far.Outcome), cmp.Or(r.Initiator, far.Initiator)
	// The far end's own endpoint is the one that is the peer here.
	peer, own := r.Peer(), far.Local()
	translated := peer.Addr != own.Addr
	if !translated {
		peer.Identity = peerIdentity(&peer.Identity, &own.Identity)
	}
	m := flowMessage(&r, labels)
	if translated {
		if isServer(far) {
			m.Backend = endpointMessage(own, labels)
		} else {
			m.Origin = endpointMessage(own, labels)
		}
	}
	m.OtherEnd = &orb8v1.OtherEnd{Node: far.Node, Bytes: far.Bytes, Packets: far.Packets}
	return m
}

// peerIdentity returns who a peer is: as it knows itself by its cgroup, which says more than its address does. Only its own
// agent may have been without names.
func peerIdentity(here, there *flow.Identity) flow.Identity {
	if there.CgroupID == 0 && *here != (flow.Identity{}) || there.Pod == "" && there.PodUID != "" && there.PodUID == here.PodUID {
		return *here
	}
	who := *there
	who.Service, who.KubernetesNode = cmp.Or(who.Service, here.Service), cmp.Or(who.KubernetesNode, here.KubernetesNode)
	return who
}

// isServer tells whether the record is of the end that did not open the connection.
func isServer(r *flow.Record) bool {
	if r.Direction == flow.Ingress {
		return r.Initiator == flow.InitiatorSource
	}
	return r.Initiator == flow.InitiatorDestination
}
