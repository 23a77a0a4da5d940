// Package backpressure tells when a ring buffer has not been read fast enough for a while.
package backpressure

import "go.uber.org/zap"

const (
	// intervals is how many intervals in a row make a state worth a line in the log.
	intervals = 3
	// threshold is the unread share of a ring buffer at which events are thinned out.
	threshold = 0.8
)

// Watch writes one line when backpressure has lasted for some intervals, and one when that is over.
type Watch struct {
	Logger *zap.Logger
	// Advice is what to do about it.
	Advice string
	// Losses name the fields for what is lost, such as lost_events.
	Losses []string

	// lost are the totals when they were last looked at, before those when backpressure began.
	lost, before []uint64
	// run counts the latest intervals that are unlike the state.
	run       int
	sustained bool
}

// Interval takes an interval's end: the unread share of the ring buffer, and all that was lost since the start, in the order of
// Losses.
func (w *Watch) Interval(utilization float64, lost ...uint64) {
	if w.lost == nil {
		w.lost, w.before = make([]uint64, len(lost)), make([]uint64, len(lost))
	}
	pressed := utilization > threshold
	for i, n := range lost {
		pressed = pressed || n > w.lost[i]
	}
	if pressed != w.sustained {
		if w.run == 0 && pressed {
			copy(w.before, w.lost)
		}
		w.run++
	} else {
		w.run = 0
	}
	copy(w.lost, lost)
	if w.run < intervals {
		return
	}
	w.run, w.sustained = 0, pressed
	var fields []zap.Field
	for i, n := range lost {
		fields = append(fields, zap.Uint64(w.Losses[i], n-w.before[i]))
	}
	if pressed {
		w.Logger.Warn("The ring buffer is not read fast enough; "+w.Advice, append(fields, zap.Float64("ring_buffer_utilization", utilization))...)
	} else {
		w.Logger.Info("The ring buffer is read fast enough again", fields...)
	}
}
