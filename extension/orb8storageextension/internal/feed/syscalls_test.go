package feed

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/storage"
	"github.com/orb8/orb8/internal/syscalls"
)

func TestSyscallsAndAnomalies(t *testing.T) {
	var f Feed
	openat, mount := syscalls.Call{ABI: syscalls.X86_64, Number: 257}, syscalls.Call{ABI: syscalls.X86_64, Number: 165}
	all := f.Subscribe(storage.EventSelection{})
	defer all.Close()
	anomalies := f.Subscribe(storage.EventSelection{Kinds: []storage.EventKind{storage.EventAnomaly}})
	defer anomalies.Close()
	mounts := f.Subscribe(storage.EventSelection{
		Kinds:    []storage.EventKind{storage.EventSyscall},
		Syscalls: storage.SyscallSelection{Allow: []storage.SyscallFilter{{Syscalls: []string{"mount"}}}},
	})
	defer mounts.Close()
	critical := f.Subscribe(storage.EventSelection{
		Flows:     storage.Selection{Allow: []storage.Filter{{Ports: []uint16{443}}}},
		Anomalies: storage.AnomalySelection{Allow: []storage.AnomalyFilter{{MinSeverity: syscalls.SeverityCritical}}},
	})
	defer critical.Close()

	events := []syscalls.Event{{Node: "node-a", Call: openat, TID: 1}, {Node: "node-a", Call: mount, TID: 2}}
	odd := []syscalls.Anomaly{{Rule: "a", Severity: syscalls.SeverityInfo, Call: mount}, {Rule: "b", Severity: syscalls.SeverityCritical, Call: mount}}
	f.PublishSyscalls(events)
	f.PublishAnomalies(odd)
	f.PublishFlows([]flow.Record{record(80)})
	first, second, rare, grave := events[0], events[1], odd[0], odd[1]
	events[0], events[1], odd[0], odd[1] = syscalls.Event{}, syscalls.Event{}, syscalls.Anomaly{}, syscalls.Anomaly{}

	requireEvents := func(s storage.Subscription, want ...storage.Event) {
		t.Helper()
		for _, w := range want {
			got, dropped, err := s.Next(t.Context())
			require.NoError(t, err)
			assert.Equal(t, w, got)
			assert.Zero(t, dropped)
		}
		requireNone(t, s)
	}
	flowEvent := storage.Event{Flow: &flow.Event{Kind: flow.EventFlow, Record: record(80)}}
	requireEvents(all, storage.Event{Syscall: &first}, storage.Event{Syscall: &second}, storage.Event{Anomaly: &rare}, storage.Event{Anomaly: &grave}, flowEvent)
	requireEvents(anomalies, storage.Event{Anomaly: &rare}, storage.Event{Anomaly: &grave})
	requireEvents(mounts, storage.Event{Syscall: &second})
	requireEvents(critical, storage.Event{Syscall: &first}, storage.Event{Syscall: &second}, storage.Event{Anomaly: &grave})
}
