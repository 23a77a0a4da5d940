package storagetest

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/storage"
	"github.com/orb8/orb8/internal/syscalls"
)

// write writes a record of every signal that ends at an instant, and more of another container where there is one more.
func (s *suite) write(t *testing.T, second float64, ports ...uint16) {
	t.Helper()
	for _, port := range ports {
		who := web
		who.CgroupID, who.Container = uint64(port), fmt.Sprintf("web-%d", port)
		client := netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), port)
		require.NoError(t, s.WriteFlows(t.Context(), []flow.Record{with(s.record(second, second), func(r *flow.Record) {
			r.Source = flow.Endpoint{Addr: client, Identity: who}
			r.HasISNs, r.ClientISN, r.ServerISN = false, 0, 0
		})}))
		require.NoError(t, s.WriteLookups(t.Context(), []flow.Lookup{{
			Time: s.at(second), Node: "node-a", Direction: flow.Egress, Transport: flow.UDP, Name: "a.example", Type: "A", RCode: "NOERROR",
			Client: flow.Endpoint{Addr: client, Identity: who}, Server: flow.Endpoint{Addr: netip.MustParseAddrPort("10.0.0.53:53")},
		}}))
		require.NoError(t, s.WriteSyscalls(t.Context(), []syscalls.Counts{{
			Start: s.at(second - 1), End: s.at(second), Node: "node-a", Identity: who, Calls: []syscalls.Count{
				{Call: syscalls.Call{ABI: syscalls.X86_64, Number: 1}, Calls: 7}, {Call: syscalls.Call{ABI: syscalls.X86_64, Number: 0}, Calls: 7},
			},
		}}))
		require.NoError(t, s.WriteAnomalies(t.Context(), []syscalls.Anomaly{{
			Time: s.at(second), Node: "node-a", Identity: who, Rule: "new-call", Severity: syscalls.SeverityInfo, Message: "it never did",
			Call: syscalls.Call{ABI: syscalls.X86_64, Number: 59},
		}}))
	}
}

// testPages puts pages together while newer records arrive. Many rows are of the same instant, and some lookups and anomalies of
// the same content: one that was sent in two batches.
func testPages(t *testing.T, s *suite) {
	for i, ports := range [][]uint16{{9, 3, 1}, {5, 4}, {3, 9, 8, 2}} {
		s.write(t, float64(10+i/2), ports...)
	}
	until := s.at(20)
	arrivals := 0
	s.everywhere(t, func(t *testing.T) {
		arrive := func() {
			if s.backend.Slow && arrivals > 0 {
				return
			}
			arrivals++
			s.write(t, float64(30+arrivals), uint16(1+arrivals))
		}
		pages(t, "flows", arrive, func(after string, limit int) ([]storage.Flow, storage.Coverage, error) {
			r, err := s.QueryFlows(t.Context(), storage.FlowQuery{Until: until, Limit: limit, After: after})
			return r.Flows, r.Coverage, err
		})
		pages(t, "lookups", arrive, func(after string, limit int) ([]flow.Lookup, storage.Coverage, error) {
			r, err := s.QueryLookups(t.Context(), storage.LookupQuery{Until: until, Limit: limit, After: after})
			return r.Lookups, r.Coverage, err
		})
		pages(t, "syscalls", arrive, func(after string, limit int) ([]storage.Syscall, storage.Coverage, error) {
			r, err := s.QuerySyscalls(t.Context(), storage.SyscallQuery{Until: until, Limit: limit, After: after})
			return r.Syscalls, r.Coverage, err
		})
		pages(t, "anomalies", arrive, func(after string, limit int) ([]syscalls.Anomaly, storage.Coverage, error) {
			r, err := s.QueryAnomalies(t.Context(), storage.AnomalyQuery{Until: until, Limit: limit, After: after})
			return r.Anomalies, r.Coverage, err
		})
	})

	cut := s.flows(t, storage.FlowQuery{Limit: 1})
	require.NotEmpty(t, cut.Next)
	for _, after := range []string{"?", "AA", "AAAA" + cut.Next} {
		_, err := s.QueryFlows(t.Context(), storage.FlowQuery{After: after})
		assert.ErrorIs(t, err, storage.ErrCursor, after)
		assert.ErrorContains(t, err, after)
	}
	_, err := s.QueryAnomalies(t.Context(), storage.AnomalyQuery{After: cut.Next})
	assert.ErrorIs(t, err, storage.ErrCursor, "of another kind")
}

func pages[R any](t *testing.T, name string, arrive func(), query func(after string, limit int) ([]R, storage.Coverage, error)) {
	t.Run(name, func(t *testing.T) {
		whole, coverage, err := query("", 0)
		require.NoError(t, err)
		require.GreaterOrEqual(t, len(whole), 7)
		assert.Empty(t, coverage.Next)
		for limit := 1; limit <= len(whole)+1; limit += 1 + limit/3 {
			var all []R
			for after, more := "", true; more; {
				rows, coverage, err := query(after, limit)
				require.NoError(t, err)
				require.NotEmpty(t, rows)
				assert.LessOrEqual(t, len(rows), limit)
				assert.Equal(t, len(whole), coverage.Matched)
				all = append(all, rows...)
				require.LessOrEqual(t, len(all), len(whole))
				if len(all) == limit {
					arrive()
				}
				after, more = coverage.Next, coverage.Next != ""
			}
			assert.Equal(t, whole, all, "pages of %d", limit)
		}
		rest, _, err := query("", 1)
		require.NoError(t, err)
		assert.Equal(t, whole[:1], rest)
		_, first, err := query("", 2)
		require.NoError(t, err)
		rest, coverage, err = query(first.Next, 0)
		require.NoError(t, err)
		assert.Equal(t, whole[2:], rest, "all that follows")
		assert.Empty(t, coverage.Next)
	})
}
