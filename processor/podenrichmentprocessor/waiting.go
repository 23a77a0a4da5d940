package podenrichmentprocessor

import (
	"context"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.uber.org/zap"

	"github.com/orb8/orb8/processor/podenrichmentprocessor/internal/metadata"
)

// retryInterval is the shortest time between two tries at what waits: pods change by the dozen.
const retryInterval = 100 * time.Millisecond

// cause why data was let go.
type cause int

const (
	causeTimeout cause = iota
	causeFull
	causeShutdown
	numCauses
)

// waiting holds the data whose pods are not known yet, of all pipelines of one configuration, until they are, and for a
// bounded time.
type waiting struct {
	timeout   time.Duration
	max       int
	telemetry *metadata.TelemetryBuilder
	logger    *zap.Logger
	causes    [numCauses]metric.AddOption

	// changed has one element when there is something to try again.
	changed chan struct{}
	stop    context.CancelFunc
	done    chan struct{}

	mu      sync.Mutex
	records int
	running bool
	queues  []interface {
		// release lets go what has become known, and what has waited long enough, or all if final. It returns when the
		// next has, which is zero if none is left.
		release(final bool) time.Time
	}
}

func newWaiting(cfg WaitConfig, telemetry *metadata.TelemetryBuilder, logger *zap.Logger) *waiting {
	w := &waiting{timeout: cfg.Timeout, max: cfg.MaxRecords, telemetry: telemetry, logger: logger, changed: make(chan struct{}, 1)}
	for c, name := range []string{causeTimeout: "timeout", causeFull: "full", causeShutdown: "shutdown"} {
		w.causes[c] = metric.WithAttributeSet(attribute.NewSet(attribute.String("cause", name)))
	}
	return w
}

// wake says that something has become known.
func (w *waiting) wake() {
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

func (w *waiting) start() {
	if w.timeout == 0 {
		return
	}
	var ctx context.Context
	ctx, w.stop = context.WithCancel(context.Background())
	w.done = make(chan struct{})
	w.mu.Lock()
	w.running = true
	w.mu.Unlock()
	go w.run(ctx)
}

// shutdown lets all go. What comes later is not held.
func (w *waiting) shutdown() {
	w.mu.Lock()
	running := w.running
	w.running = false
	w.mu.Unlock()
	if running {
		w.stop()
		<-w.done
		w.releaseAll(true)
	}
}

func (w *waiting) run(ctx context.Context) {
	defer close(w.done)
	pause := time.NewTicker(retryInterval)
	defer pause.Stop()
	for {
		var due <-chan time.Time
		if next := w.releaseAll(false); !next.IsZero() {
			due = time.After(time.Until(next))
		}
		select {
		case <-ctx.Done():
			return
		case <-w.changed:
		case <-due:
		}
		select {
		case <-ctx.Done():
			return
		case <-pause.C:
		}
	}
}

// releaseAll returns when something has waited long enough next.
func (w *waiting) releaseAll(final bool) (next time.Time) {
	w.mu.Lock()
	queues := w.queues
	w.mu.Unlock()
	for _, q := range queues {
		if due := q.release(final); next.IsZero() || !due.IsZero() && due.Before(next) {
			next = due
		}
	}
	return next
}

func (w *waiting) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.records
}

func (w *waiting) letGo(records int, why cause) {
	w.telemetry.ProcessorPodEnrichmentLetGo.Add(context.Background(), int64(records), w.causes[why])
}

// queue is what one pipeline holds.
type queue[T any] struct {
	*waiting
	// try names what it can, and with final set makes do with that. It returns whether all is named that may be.
	try func(data T, final bool) bool
	// merge moves what from holds to the end of to.
	merge func(from, to T)
	empty func() T
	next  func(context.Context, T) error

	held []batch[T] // in the order of their deadlines
}

type batch[T any] struct {
	data     T
	records  int
	deadline time.Time
}

func newQueue[T any](w *waiting, try func(T, bool) bool, merge func(from, to T), empty func() T, next func(context.Context, T) error) *queue[T] {
	q := &queue[T]{waiting: w, try: try, merge: merge, empty: empty, next: next}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.queues = append(w.queues, q)
	return q
}

// hold takes the data, or returns false and has made do with what is known, as there is no room.
func (q *queue[T]) hold(data T, records int) bool {
	q.mu.Lock()
	fits, why := q.running && q.records+records <= q.max, causeFull
	if !q.running {
		why = causeShutdown
	}
	if fits {
		q.held = append(q.held, batch[T]{data, records, time.Now().Add(q.timeout)})
		q.records += records
	}
	first := fits && len(q.held) == 1
	q.mu.Unlock()
	if first {
		q.wake() // there is a deadline now
	}
	if !fits {
		q.try(data, true)
		if q.timeout > 0 {
			q.letGo(records, why)
		}
	}
	return fits
}

// await names the data and waits, as long as anything would be held, before it returns. A gateway's answer says that all of a request is
// taken: nothing of it may be lost afterwards, nor come in other company if the request is sent again, as a store knows it by that.
func (q *queue[T]) await(ctx context.Context, data T, records int) error {
	if q.try(data, false) {
		return nil
	}
	timeout := q.timeout
	if deadline, ok := ctx.Deadline(); ok {
		// The rest is for those behind.
		timeout = min(timeout, time.Until(deadline)/2)
	}
	q.mu.Lock()
	why, waits := causeTimeout, q.running && q.records+records <= q.max
	if waits {
		q.records += records
	} else if why = causeFull; !q.running {
		why = causeShutdown
	}
	q.mu.Unlock()
	if waits {
		named, err := q.poll(ctx, data, timeout)
		q.mu.Lock()
		q.records -= records
		q.mu.Unlock()
		if named || err != nil {
			return err
		}
	}
	if q.timeout > 0 {
		q.letGo(records, why)
	}
	q.try(data, true)
	return nil
}

// poll tries until all is named, or the time is over.
func (q *queue[T]) poll(ctx context.Context, data T, timeout time.Duration) (named bool, err error) {
	over := time.NewTimer(timeout)
	defer over.Stop()
	again := time.NewTicker(retryInterval)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-over.C:
			return false, nil
		case <-again.C:
			if q.try(data, false) {
				return true, nil
			}
		}
	}
}

func (q *queue[T]) release(final bool) (due time.Time) {
	q.mu.Lock()
	held := q.held
	q.held = nil
	q.mu.Unlock()
	out, released := q.empty(), 0
	now := time.Now()
	kept := held[:0]
	for _, b := range held {
		if !q.try(b.data, false) {
			switch {
			case final:
				q.letGo(b.records, causeShutdown)
			case !now.Before(b.deadline):
				q.letGo(b.records, causeTimeout)
			default:
				kept = append(kept, b)
				continue
			}
			q.try(b.data, true)
		}
		q.merge(b.data, out)
		released += b.records
	}
	clear(held[len(kept):])
	q.mu.Lock()
	q.held = append(kept, q.held...)
	q.records -= released
	if len(q.held) > 0 {
		due = q.held[0].deadline
	}
	q.mu.Unlock()
	if released > 0 {
		q.send(out, released)
	}
	return due
}

// send hands on what was held. Nobody is left to hear of an error, so it is counted.
func (q *queue[T]) send(data T, records int) {
	if err := q.next(context.Background(), data); err != nil {
		q.telemetry.ProcessorPodEnrichmentRefused.Add(context.Background(), int64(records))
		q.logger.Error("Records that had waited for their pod were refused, and are lost", zap.Int("records", records), zap.Error(err))
	}
}
