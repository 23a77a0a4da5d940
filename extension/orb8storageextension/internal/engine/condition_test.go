package engine

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/storage"
	"github.com/orb8/orb8/internal/syscalls"
)

func TestFlowCondition(t *testing.T) {
	pods := Term{Fields: []string{"source.k8s.pod.name", "destination.k8s.pod.name"}, Equal: []string{"web-0", "db-0"}}
	tcp := Term{Fields: []string{"network.transport"}, Equal: []string{"tcp"}}
	port := Term{Fields: []string{"source.port", "destination.port"}, Equal: []string{"53"}}
	for name, tt := range map[string]struct {
		selection storage.Selection
		want      Any
	}{
		"nothing": {},
		"denied":  {storage.Selection{Deny: []storage.Filter{{Pods: []string{"web-0"}}}}, nil},
		"the rarest, and what both ends see": {storage.Selection{Allow: []storage.Filter{{
			Ports: []uint16{53}, Namespaces: []string{"shop"}, Pods: []string{"web-0", "data/db-0"}, Transports: []flow.Transport{flow.TCP},
		}}}, Any{{pods, tcp}}},
		"any": {storage.Selection{Allow: []storage.Filter{{Ports: []uint16{53}}, {Transports: []flow.Transport{flow.TCP}}}}, Any{{port}, {tcp}}},
		"one that the engine cannot tell": {
			storage.Selection{Allow: []storage.Filter{{Ports: []uint16{53}}, {Outcomes: []flow.Outcome{flow.OutcomeReset}}}}, nil},
		"a pattern": {storage.Selection{Allow: []storage.Filter{{Names: []string{"*.example"}}}}, nil},
		"one end": {
			storage.Selection{Allow: []storage.Filter{{Ports: []uint16{53}, Destination: storage.EndFilter{Services: []string{"shop/web"}}}}},
			Any{{{Fields: []string{"destination.k8s.service.name"}, Equal: []string{"web"}}}},
		},
		"container": {storage.Selection{Allow: []storage.Filter{{Source: storage.EndFilter{Containers: []string{"0123"}}}}}, Any{{{
			Fields: []string{"source.k8s.container.name", "source.container.id"}, Equal: []string{"0123"}, Begin: []string{"0123"},
		}}}},
		"address": {
			storage.Selection{Allow: []storage.Filter{{Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}}},
			Any{{{Fields: []string{"source.address", "destination.address"}, Within: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}}},
		},
	} {
		t.Run(name, func(t *testing.T) { assert.Equal(t, tt.want, flowCondition(&tt.selection)) })
	}
}

func TestOtherConditions(t *testing.T) {
	name := Term{Fields: []string{"dns.question.name"}, Equal: []string{"a.example"}}
	pod := Term{Fields: []string{"k8s.pod.name"}, Equal: []string{"web-0"}}
	either := Term{Fields: []string{"source.k8s.pod.name", "destination.k8s.pod.name"}, Equal: []string{"web-0"}}
	flows := storage.Selection{Allow: []storage.Filter{{Pods: []string{"web-0"}}}}
	assert.Equal(t, Any{{name, either}}, lookupCondition(&storage.LookupSelection{Allow: []storage.LookupFilter{{Names: []string{"a.example"}, Flows: flows}}}))
	assert.Nil(t, lookupCondition(&storage.LookupSelection{Allow: []storage.LookupFilter{{Names: []string{"*"}}, {Names: []string{"a.example"}}}}))
	assert.Equal(t, Any{{pod}}, syscallCondition(&storage.SyscallSelection{Allow: []storage.SyscallFilter{{Pods: []string{"shop/web-0"}, Syscalls: []string{"read"}}}}))
	assert.Nil(t, syscallCondition(&storage.SyscallSelection{Allow: []storage.SyscallFilter{{Syscalls: []string{"read"}}}}))
	assert.Equal(t, Any{{pod, {Fields: []string{"orb8.anomaly.rule"}, Equal: []string{"new"}}}}, anomalyCondition(&storage.AnomalySelection{
		Allow: []storage.AnomalyFilter{{Call: storage.SyscallFilter{Pods: []string{"web-0"}}, Rules: []string{"new"}}},
	}))
	assert.Nil(t, anomalyCondition(&storage.AnomalySelection{Allow: []storage.AnomalyFilter{{MinSeverity: syscalls.SeverityWarning}}}))
}
