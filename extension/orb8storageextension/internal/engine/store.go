package engine

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/gpu"
	"github.com/orb8/orb8/internal/syscalls"
)

// maxQueries is how many queries run at once; the others wait their turn. A query takes several times the memory of what it reads.
const maxQueries = 2

// Settings bound a store.
type Settings struct {
	Engine Engine
	// Retention is how far back queries look, at least 1 s. The engine itself decides how long it keeps what.
	Retention time.Duration
	// MaxQueryRecords is how many records a query reads, the newest.
	MaxQueryRecords int
	// Now is the clock.
	Now    func() time.Time
	Logger *zap.Logger
	// Report is told when writing to the engine begins to fail, and nil when it works again.
	Report func(error)
}

// Store is a store whose records are in an engine. It keeps nothing itself, so that several over one engine are one store.
type Store struct {
	Settings
	turns chan struct{}
	state state
}

// New returns a store over an engine.
func New(settings Settings) *Store {
	return &Store{Settings: settings, turns: make(chan struct{}, maxQueries), state: state{report: settings.Report}}
}

// Close is there because every backend has one.
func (s *Store) Close() error { return nil }

// WriteFlows stores records. Fresh is true where they are stored: whether the engine had them, nobody asks. Readers see a record
// that is there twice once.
func (s *Store) WriteFlows(ctx context.Context, records []flow.Record) (fresh bool, err error) {
	b := newBatch(flow.EventNameFlow)
	for i := range records {
		b.flow(&records[i])
	}
	return s.write(ctx, b)
}

// WriteLookups is WriteFlows of lookups.
func (s *Store) WriteLookups(ctx context.Context, lookups []flow.Lookup) (fresh bool, err error) {
	b := newBatch(flow.EventNameLookup)
	for i := range lookups {
		b.lookup(&lookups[i])
	}
	return s.write(ctx, b)
}

// WriteSyscalls is WriteFlows of counts.
func (s *Store) WriteSyscalls(ctx context.Context, counts []syscalls.Counts) (fresh bool, err error) {
	b := newBatch(syscalls.EventNameCounts)
	for i := range counts {
		b.counts(&counts[i])
	}
	return s.write(ctx, b)
}

// WriteAnomalies is WriteFlows of anomalies.
func (s *Store) WriteAnomalies(ctx context.Context, anomalies []syscalls.Anomaly) (fresh bool, err error) {
	b := newBatch(syscalls.EventNameAnomaly)
	for i := range anomalies {
		b.anomaly(&anomalies[i])
	}
	return s.write(ctx, b)
}

// WriteStatus stores a node's status; all of them are kept, and the latest counts.
func (s *Store) WriteStatus(ctx context.Context, status flow.NetworkStatus) error {
	b := newBatch(flow.EventNameStatus)
	b.status(status.Node, s.Now(), status.LostPackets+status.LostBytes+status.LostEvents > 0, status.PutTo)
	_, err := s.write(ctx, b)
	return err
}

// WriteSyscallStatus is WriteStatus of the system calls.
func (s *Store) WriteSyscallStatus(ctx context.Context, status syscalls.Status) error {
	b := newBatch(syscalls.EventNameStatus)
	b.status(status.Node, s.Now(), status.LostCalls+status.LostEvents > 0, status.PutTo)
	_, err := s.write(ctx, b)
	return err
}

// WriteGPUStatus is WriteStatus of the GPUs.
func (s *Store) WriteGPUStatus(ctx context.Context, status gpu.Status) error {
	b := newBatch(gpu.EventNameStatus)
	b.status(status.Node, s.Now(), false, status.PutTo)
	_, err := s.write(ctx, b)
	return err
}

func (s *Store) write(ctx context.Context, b *batch) (fresh bool, err error) {
	if b.logs.LogRecordCount() == 0 {
		return true, nil
	}
	err = s.Engine.Write(ctx, b.logs)
	if ctx.Err() == nil { // or it says nothing of the engine
		s.state.set(err)
	}
	return err == nil, err
}
