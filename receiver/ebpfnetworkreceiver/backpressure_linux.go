package ebpfnetworkreceiver

import "go.uber.org/zap"

const (
	// backpressureIntervals is how many intervals in a row make a state worth a line in the log.
	backpressureIntervals = 3
	// backpressureUtilization is the unread share of the ring buffer at which sampled events are thinned out.
	backpressureUtilization = 0.8
)

// backpressure tells when the ring buffer has not been read fast enough for a while, and when that is over: one line each.
type backpressure struct {
	logger *zap.Logger
	// events and packets are the totals that were lost when they were last looked at, eventsBefore and packetsBefore those
	// when backpressure began.
	events, packets             uint64
	eventsBefore, packetsBefore uint64
	// run counts the latest intervals that are unlike the state.
	run       int
	sustained bool
}

// interval takes an interval's end: the unread share of the ring buffer, and all events and packets lost since the start.
func (b *backpressure) interval(utilization float64, events, packets uint64) {
	pressed := utilization > backpressureUtilization || events > b.events || packets > b.packets
	if pressed != b.sustained {
		if b.run == 0 && pressed {
			b.eventsBefore, b.packetsBefore = b.events, b.packets
		}
		b.run++
	} else {
		b.run = 0
	}
	b.events, b.packets = events, packets
	if b.run < backpressureIntervals {
		return
	}
	b.run, b.sustained = 0, pressed
	lost := []zap.Field{zap.Uint64("lost_events", events-b.eventsBefore), zap.Uint64("lost_packets", packets-b.packetsBefore)}
	if pressed {
		b.logger.Warn("The ring buffer is not read fast enough; raise ring_buffer_size or flow_table_size, or lower events.sampling",
			append(lost, zap.Float64("ring_buffer_utilization", utilization))...)
	} else {
		b.logger.Info("The ring buffer is read fast enough again", lost...)
	}
}
