package ebpfsyscallreceiver

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/plog"

	"github.com/orb8/orb8/internal/kernelclock"
	"github.com/orb8/orb8/internal/syscalls"
	"github.com/orb8/orb8/receiver/ebpfsyscallreceiver/internal/arguments"
	"github.com/orb8/orb8/receiver/ebpfsyscallreceiver/internal/engine"
)

var update = flag.Bool("update", false, "write the golden files")

// assertGolden holds logs to testdata/NAME.json.
func assertGolden(t *testing.T, name string, logs plog.Logs) {
	t.Helper()
	raw, err := (&plog.JSONMarshaler{}).MarshalLogs(logs)
	require.NoError(t, err)
	var got bytes.Buffer
	require.NoError(t, json.Indent(&got, raw, "", "  "))
	got.WriteByte('\n')
	path := filepath.Join("testdata", name+".json")
	if *update {
		require.NoError(t, os.WriteFile(path, got.Bytes(), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, string(want), got.String(), "if this is right: go test -run %s -update", t.Name())
}

func TestRecordsOfCounts(t *testing.T) {
	c := counts{}
	latency := syscalls.Latency{Sum: 5 * time.Microsecond}
	latency.Buckets[1] = 12
	c.add(7, &syscalls.Count{Call: amd64(0), Calls: 12, Errors: map[string]uint64{"EAGAIN": 3}, Latency: &latency})
	c.add(7, &syscalls.Count{Call: amd64(5000), Calls: 1})
	c.add(8, &syscalls.Count{Call: syscalls.Call{ABI: syscalls.I386, Number: 5}, Calls: 2})
	require.EqualValues(t, 15, c.calls)
	b := newBatch("1.2.3")
	for record := range c.records() {
		record.Start, record.End, record.LostCalls = second(0), second(5), 9
		b.addCounts(&record, syscalls.X86_64)
	}
	assert.EqualValues(t, 15, b.calls)
	assert.Equal(t, 2, b.Records)
	assertGolden(t, "counts", b.Logs)

	c.reset()
	assert.Empty(t, c.cgroups)
	c.add(9, &syscalls.Count{Call: amd64(1), Calls: 1})
	assert.EqualValues(t, 1, c.calls)
	assert.Len(t, c.of(0), 1)
}

func TestRecordsOfEventsAndStatus(t *testing.T) {
	b := newBatch("1.2.3")
	rec := recorder{decoder: arguments.New(syscalls.X86_64)}
	for _, e := range []engine.Event{
		{
			Time: 7, CgroupID: 7, Call: amd64(59), PID: 11, TID: 12, Comm: []byte("sh"), Args: [6]uint64{0x7f00, 1}, Sampling: 1,
			Text: []byte("/bin/true"), State: engine.TextWhole,
		},
		{
			Time: 8, CgroupID: 8, Call: amd64(257), PID: 21, TID: 21, Comm: []byte("a\xffb"), Args: [6]uint64{3, 0x7f00}, Sampling: 10,
			State: engine.TextUnreadable,
		},
		{Time: 9, CgroupID: 7, Call: syscalls.Call{ABI: syscalls.I386, Number: 20}, PID: 11, TID: 11, Comm: []byte("old"), Sampling: 100},
	} {
		event := rec.event(&e)
		event.Time = time.Unix(0, int64(e.Time)) // as if the host had just been started, in 1970
		b.addEvent(&event)
	}
	b.addStatus(&syscalls.Status{
		Version: "1.2.3", Kernel: "6.1.0", Time: second(5), Started: second(0), Interval: 5 * time.Second, Calls: 15, LostCalls: 1,
		LostEvents: 2, Cgroups: 2, RingBufferBytes: 512 << 10, RingBufferUtilization: 0.25, Thinning: 10,
		Unavailable: map[string]string{"latency": "needs another kernel"},
	})
	assert.EqualValues(t, 3, b.events)
	assert.Equal(t, 4, b.Records)
	assert.Equal(t, 3, b.Logs.ResourceLogs().Len(), "two cgroups and the node")
	assertGolden(t, "events", b.Logs)
}

func TestEventsHaveWallTime(t *testing.T) {
	rec := recorder{decoder: arguments.New(syscalls.X86_64)}
	event := rec.event(&engine.Event{Time: uint64(kernelclock.Now())})
	assert.WithinDuration(t, time.Now(), event.Time, time.Second)
}

func TestABatchIsFullByItsSize(t *testing.T) {
	b := newBatch("")
	for range maxBatch - 1 {
		b.addEvent(&syscalls.Event{Call: amd64(0)})
	}
	assert.False(t, b.full())
	b.addEvent(&syscalls.Event{Call: amd64(0)})
	assert.True(t, b.full())

	b = newBatch("")
	many := make([]syscalls.Count, maxBatch/(1+syscalls.LatencyBuckets)+1)
	for i := range many {
		many[i] = syscalls.Count{Call: amd64(int32(i)), Calls: 1, Latency: &syscalls.Latency{}}
	}
	b.addCounts(&syscalls.Counts{Calls: many}, syscalls.X86_64)
	assert.True(t, b.full(), "latencies weigh")
}

func FuzzComm(f *testing.F) {
	f.Add([]byte("nginx"), uint64(1))
	f.Add([]byte("\xff\x00\x1b"), ^uint64(0))
	f.Fuzz(func(t *testing.T, comm []byte, ns uint64) {
		rec := recorder{decoder: arguments.New(syscalls.X86_64)}
		e := rec.event(&engine.Event{Time: ns, Comm: comm, Call: amd64(39)})
		assert.True(t, utf8.ValidString(e.Identity.Process), "OTLP takes no other")
	})
}
