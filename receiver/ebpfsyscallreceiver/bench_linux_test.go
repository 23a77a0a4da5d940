package ebpfsyscallreceiver

import (
	"testing"

	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/receiver/receivertest"

	"github.com/orb8/orb8/internal/syscalls"
	"github.com/orb8/orb8/receiver/ebpfsyscallreceiver/internal/engine"
	"github.com/orb8/orb8/receiver/ebpfsyscallreceiver/internal/metadata"
)

func benchReceiver(b *testing.B) *syscallReceiver {
	b.Helper()
	r, err := newSyscallReceiver(receivertest.NewNopSettings(metadata.Type), createDefaultConfig().(*Config))
	if err != nil {
		b.Fatal(err)
	}
	r.logs = consumertest.NewNop()
	return r
}

// BenchmarkEvents is from the ring buffer's record to the pipeline.
func BenchmarkEvents(b *testing.B) {
	r := benchReceiver(b)
	rec := recorder{decoder: r.decoder}
	e := engine.Event{
		Time: 7, Call: amd64(257), PID: 11, TID: 12, Comm: []byte("nginx"), Args: [6]uint64{^uint64(99), 0x7f00, 0x80000}, Sampling: 1,
		Text: []byte("/usr/lib/x86_64-linux-gnu/libc.so.6"), State: engine.TextWhole,
	}
	b.ReportAllocs()
	n := uint64(0)
	for b.Loop() {
		n++
		e.CgroupID = n % 200
		r.addEvent(rec.event(&e))
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

// BenchmarkInterval is one interval of 200 cgroups that made 60 different calls each: records, and metrics.
func BenchmarkInterval(b *testing.B) {
	const cgroups, calls = 200, 60
	for name, latency := range map[string]*syscalls.Latency{"counts": nil, "latency": {Sum: 1, Buckets: [syscalls.LatencyBuckets]uint64{1}}} {
		fill := func(r *syscallReceiver) {
			r.counts.reset()
			for id := range uint64(cgroups) {
				for n := range int32(calls) {
					r.counts.add(1+id, &syscalls.Count{Call: amd64(n), Calls: 100, Latency: latency})
				}
			}
		}
		b.Run("records/"+name, func(b *testing.B) {
			r := benchReceiver(b)
			fill(r)
			b.ReportAllocs()
			for b.Loop() {
				r.sendCounts(second(0), second(5), 0)
			}
			b.ReportMetric(float64(b.N*cgroups)/b.Elapsed().Seconds(), "records/s")
		})
		b.Run("metrics/"+name, func(b *testing.B) {
			r := benchReceiver(b)
			fill(r)
			s := newSeries(latency != nil)
			b.ReportAllocs()
			for b.Loop() {
				s.add(second(0), second(5), r.counts)
				now := pcommon.NewTimestampFromTime(second(5))
				s.record(r.mb, now)
				md := r.mb.Emit()
				if s.latency {
					s.appendDurations(md, "", now)
				}
			}
			b.ReportMetric(float64(b.N*cgroups*calls)/b.Elapsed().Seconds(), "series/s")
		})
	}
}
