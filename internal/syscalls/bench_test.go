package syscalls

import (
	"testing"

	"go.opentelemetry.io/collector/pdata/plog"
)

// BenchmarkCountsFrom is of a record of 60 calls from all over the table, as a busy container has one every interval.
func BenchmarkCountsFrom(b *testing.B) {
	const calls, apart = 60, 6
	c := Counts{Start: at(0), End: at(5)}
	for i := range int32(calls) {
		c.Calls = append(c.Calls, Count{Call: Call{X86_64, i * apart}, Calls: 1000})
	}
	res, lr := resource(), plog.NewLogRecord()
	c.PutTo(lr, X86_64)
	b.ReportAllocs()
	for b.Loop() {
		got, err := CountsFrom(res, lr)
		if err != nil || len(got.Calls) != calls {
			b.Fatal(len(got.Calls), err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/calls, "ns/call")
}
