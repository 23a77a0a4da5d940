package orb8storageextension

import (
	"context"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component/componentstatus"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/consumer/consumererror"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/storage"
	"github.com/orb8/orb8/testbed/backends"
)

// visible is how long a test waits for what was written to be seen.
const visible = 20 * time.Second

func flowRecord(i int) flow.Record {
	end := time.Now().UTC().Add(-time.Second)
	return flow.Record{
		Start: end.Add(-time.Second), End: end, Node: "node-a", Direction: flow.Egress, Transport: flow.UDP, Bytes: 100, Packets: 1, Connections: 1,
		Source:      flow.Endpoint{Addr: netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), uint16(i))},
		Destination: flow.Endpoint{Addr: netip.MustParseAddrPort("10.0.0.2:53")},
	}
}

// matched waits until so many flows are seen.
func matched(t *testing.T, store storage.Store, want int) {
	t.Helper()
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		result, err := store.QueryFlows(context.Background(), storage.FlowQuery{})
		require.NoError(c, err)
		assert.Equal(c, want, result.Matched)
	}, visible, 50*time.Millisecond)
}

// TestEnginesThatAreAway stops a server, and starts it again with what it had. Writes fail meanwhile, with errors that let the
// sender try again, and nothing is lost of what it sends until it has an acknowledgement.
func TestEnginesThatAreAway(t *testing.T) {
	for backend, start := range map[string]func(testing.TB) *backends.Server{"victorialogs": backends.VictoriaLogs, "loki": backends.Loki} {
		t.Run(backend, func(t *testing.T) {
			server := start(t)
			config := createDefaultConfig().(*Config)
			require.NoError(t, confmap.NewFromStringMap(map[string]any{backend: map[string]any{
				"endpoint": server.URL, "headers": tenant(), "timeout": "2s",
			}}).Unmarshal(config))
			e := newStorageExtension(componenttest.NewNopTelemetrySettings(), config)
			h := &reporter{}
			require.NoError(t, e.Start(t.Context(), h))
			t.Cleanup(func() { assert.NoError(t, e.Shutdown(context.Background())) })
			records := []flow.Record{flowRecord(1), flowRecord(2), flowRecord(3)}
			require.NoError(t, e.WriteFlows(t.Context(), records[:1]))
			matched(t, e, 1)

			server.Stop()
			err := e.WriteFlows(t.Context(), records[1:2])
			require.ErrorContains(t, err, "cannot write to ")
			require.ErrorContains(t, err, "connection refused")
			assert.False(t, consumererror.IsPermanent(err), "the sender keeps it")
			_, err = e.QueryFlows(t.Context(), storage.FlowQuery{})
			require.ErrorContains(t, err, "cannot read from ")
			require.ErrorAs(t, err, new(*storage.UnavailableError))
			_, err = e.Status(t.Context())
			require.ErrorContains(t, err, "connection refused")
			require.ErrorAs(t, err, new(*storage.UnavailableError))

			server.Start()
			require.NoError(t, e.WriteFlows(t.Context(), records[1:2]))
			matched(t, e, 2)

			server.Freeze()
			err = e.WriteFlows(t.Context(), records[2:])
			require.ErrorIs(t, err, context.DeadlineExceeded, "the configured timeout: the test's context has none")
			assert.False(t, consumererror.IsPermanent(err))
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			_, err = e.QueryFlows(ctx, storage.FlowQuery{})
			require.ErrorIs(t, err, context.DeadlineExceeded)
			server.Thaw()
			// It may have been stored, or not: the sender does not know, and sends it again.
			require.EventuallyWithT(t, func(c *assert.CollectT) { assert.NoError(c, e.WriteFlows(context.Background(), records[2:])) },
				visible, 50*time.Millisecond)
			matched(t, e, 3)
			result, err := e.QueryFlows(t.Context(), storage.FlowQuery{})
			require.NoError(t, err)
			for _, f := range result.Flows {
				assert.EqualValues(t, 1, f.Packets, "once")
			}
			assert.Equal(t, []componentstatus.Status{
				componentstatus.StatusRecoverableError, componentstatus.StatusOK, componentstatus.StatusRecoverableError, componentstatus.StatusOK,
			}, h.statuses)
		})
	}
}

// TestRefused is what a server says to somebody without a tenant, and to records that it takes from nobody.
func TestRefused(t *testing.T) {
	server := backends.Loki(t)
	e := openEngine(t, "loki", server.URL, nil)
	err := e.WriteFlows(t.Context(), []flow.Record{flowRecord(1)})
	require.ErrorContains(t, err, "401 Unauthorized: no org id")
	assert.False(t, consumererror.IsPermanent(err), "the configuration can be changed, and the queue keeps the records")
	_, err = e.QueryFlows(t.Context(), storage.FlowQuery{})
	require.ErrorContains(t, err, "401 Unauthorized: no org id")

	e = openEngine(t, "loki", server.URL, tenant())
	old := flowRecord(1)
	old.End = old.End.Add(-1000 * time.Hour)
	err = e.WriteFlows(t.Context(), []flow.Record{old})
	require.ErrorContains(t, err, "400 Bad Request: ")
	assert.True(t, consumererror.IsPermanent(err), "it would be refused for ever, and all that follows would wait")
}

// TestManyRecords reads no more than it may, and says what the answer covers.
func TestManyRecords(t *testing.T) {
	for backend, start := range map[string]func(testing.TB) *backends.Server{"victorialogs": backends.VictoriaLogs, "loki": backends.Loki} {
		t.Run(backend, func(t *testing.T) {
			const written, bound = 12_000, 5000
			server, headers := start(t), tenant()
			e := openEngine(t, backend, server.URL, headers)
			records := make([]flow.Record, written)
			first := time.Now().UTC().Add(-time.Minute)
			for i := range records {
				records[i] = flowRecord(i)
				records[i].End = first.Add(time.Duration(i) * time.Millisecond)
				records[i].Start = records[i].End
			}
			for part := range slices.Chunk(records, 512) {
				require.NoError(t, e.WriteFlows(t.Context(), part))
			}
			matched(t, e, written)

			config := createDefaultConfig().(*Config)
			require.NoError(t, confmap.NewFromStringMap(map[string]any{backend: map[string]any{
				"endpoint": server.URL, "headers": headers, "max_query_records": bound,
			}}).Unmarshal(config))
			e = newStorageExtension(componenttest.NewNopTelemetrySettings(), config)
			require.NoError(t, e.Start(t.Context(), componenttest.NewNopHost()))
			result, err := e.QueryFlows(t.Context(), storage.FlowQuery{})
			require.NoError(t, err)
			assert.LessOrEqual(t, result.Matched, bound+5000, "or an answer of Loki's more")
			assert.Positive(t, result.Matched)
			var whole int
			for i := range records {
				if !records[i].Start.Before(result.Oldest) {
					whole++
				}
			}
			assert.Greater(t, whole, bound/4)
			assert.GreaterOrEqual(t, result.Matched, whole, "from then on it is whole")
			require.NoError(t, e.Shutdown(t.Context()))
		})
	}
}
