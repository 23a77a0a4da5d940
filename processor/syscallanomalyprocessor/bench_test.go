package syscallanomalyprocessor

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/processor/processortest"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/syscalls"
	"github.com/orb8/orb8/processor/syscallanomalyprocessor/internal/metadata"
)

func benchmark(b *testing.B, records int, fill func(i int, lr plog.LogRecord)) {
	d, err := newDetector(processortest.NewNopSettings(metadata.Type), testConfig())
	require.NoError(b, err)
	ld, slice := newLogs(cart("a"))
	for i := range records {
		fill(i, slice.AppendEmpty())
	}
	// Known to the profile, which is complete, as nearly all records are.
	now := time.Now()
	d.now = func() time.Time { return now }
	for range d.cfg.Learning.MinIntervals {
		learned := syscalls.Counts{Start: now.Add(-testInterval), End: now}
		for number := range int32(400) {
			learned.Calls = append(learned.Calls, syscalls.Count{Call: syscalls.Call{ABI: syscalls.X86_64, Number: number}, Calls: 1000})
		}
		one, records := newLogs(cart("a"))
		learned.PutTo(records.AppendEmpty(), syscalls.X86_64)
		_, err = d.logs(b.Context(), one)
		require.NoError(b, err)
	}
	now = now.Add(d.cfg.Learning.Window)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.logs(b.Context(), ld); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(records), "ns/record")
	require.Equal(b, 1, ld.ResourceLogs().At(0).ScopeLogs().Len(), "there was nothing to report")
}

// BenchmarkCounts is of records of 60 calls, as a busy container has them every interval.
func BenchmarkCounts(b *testing.B) {
	benchmark(b, 100, func(_ int, lr plog.LogRecord) {
		c := syscalls.Counts{Start: time.Now().Add(-testInterval), End: time.Now()}
		for number := range int32(60) {
			c.Calls = append(c.Calls, syscalls.Count{Call: syscalls.Call{ABI: syscalls.X86_64, Number: number}, Calls: 1000})
		}
		c.PutTo(lr, syscalls.X86_64)
	})
}

// BenchmarkEvents is of calls that no rule looks at, of those that several ask for a path, and of those with one condition.
func BenchmarkEvents(b *testing.B) {
	for _, text := range []string{
		"x recvfrom sockfd=3 len=100", "x openat dirfd=AT_FDCWD pathname=/usr/lib/x86_64-linux-gnu/libc.so.6 flags=O_RDONLY|O_CLOEXEC",
		"x execve pathname=/usr/bin/python3", "x clone flags=CLONE_VM|SIGCHLD", "x socket domain=AF_INET type=SOCK_STREAM protocol=0",
	} {
		h := &harness{t: b, time: time.Now()}
		e := h.eventOf(text)
		b.Run(e.Call.Name(), func(b *testing.B) {
			benchmark(b, 100, func(_ int, lr plog.LogRecord) { e.PutTo(lr) })
		})
	}
}

func BenchmarkOtherRecords(b *testing.B) {
	benchmark(b, 100, func(i int, lr plog.LogRecord) {
		lr.SetEventName(flow.EventNameFlow)
		lr.Body().SetStr(fmt.Sprint(i))
	})
}

func BenchmarkLoadRules(b *testing.B) {
	for b.Loop() {
		if _, err := (&RulesConfig{}).load(); err != nil {
			b.Fatal(err)
		}
	}
}
