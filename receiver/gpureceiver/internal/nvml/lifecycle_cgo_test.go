//go:build linux && cgo

package nvml

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/orb8/orb8/internal/fakenvml"
)

// value returns that of a metric, and whether the device has it.
func value(d *Device, metric, part string) (float64, bool) {
	for _, v := range d.Values {
		if v.Metric == metric && v.Part == part {
			return v.Value, true
		}
	}
	return 0, false
}

func TestADriverThatIsGoneComesBack(t *testing.T) {
	s, g := newSource(t, HoldAlways, fakenvml.Scenario("a100"), nil)
	_, err := s.Snapshot(at)
	require.NoError(t, err)

	g.Set("init 9\n") // what rmmod leaves
	_, err = s.Snapshot(at.Add(10 * time.Second))
	require.ErrorIs(t, err, errLost)
	for _, after := range []time.Duration{20, 25, 29} {
		_, err = s.Snapshot(at.Add(after * time.Second))
		require.ErrorIs(t, err, ErrAbsent)
	}
	g.Set(fakenvml.Scenario("a100"))
	_, err = s.Snapshot(at.Add(29999 * time.Millisecond))
	require.ErrorIs(t, err, ErrAbsent, "it is not tried at every scrape")
	got, err := s.Snapshot(at.Add(30 * time.Second))
	require.NoError(t, err)
	assert.Len(t, got.Devices, 1)
}

func TestAttemptsToOpenBecomeRarer(t *testing.T) {
	tries := 0
	s := New(Options{})
	s.open = func([]string) (driver, error) { tries++; return nil, ErrAbsent }
	var tried []time.Duration
	for after := time.Duration(0); after < 10*time.Minute; after += time.Second {
		before := tries
		_, err := s.Snapshot(at.Add(after))
		require.ErrorIs(t, err, ErrAbsent)
		if tries > before {
			tried = append(tried, after)
		}
	}
	assert.Equal(t, []time.Duration{0, 10e9, 30e9, 70e9, 150e9, 270e9, 390e9, 510e9}, tried)
}

func TestAGPUThatIsLostIsNamed(t *testing.T) {
	both := fakenvml.Node(2, 1)
	s, g := newSource(t, HoldAlways, both, nil)
	_, err := s.Snapshot(at)
	require.NoError(t, err)
	g.Set(both + "lost 1\n")
	for after := 10 * time.Second; after <= 2*time.Minute; after += 10 * time.Second {
		got, err := s.Snapshot(at.Add(after))
		require.EqualError(t, err, "GPU 1: GPU is lost (15)", "also after NVML was opened anew")
		require.Len(t, got.Devices, 2)
		lost := got.Devices[1]
		assert.True(t, lost.Lost)
		assert.Equal(t, "GPU-b1000000-0000-0000-0000-000000000001", lost.UUID)
		failed, _ := value(&lost, "hw.status", "failed")
		assert.InDelta(t, 1, failed, 0)
		power, ok := value(&got.Devices[0], "hw.power", "")
		assert.True(t, ok)
		assert.InDelta(t, 698.123, power, 1e-9, "the others go on")
	}
	g.Set(both)
	got, err := s.Snapshot(at.Add(3 * time.Minute))
	require.NoError(t, err)
	assert.False(t, got.Devices[1].Lost)
}

func TestAGPUThatMayNotBeSeenIsAnError(t *testing.T) {
	s, _ := newSource(t, HoldAlways, fakenvml.Node(1, 0)+"device 1\nhandle !4\n", nil)
	got, err := s.Snapshot(at)
	require.EqualError(t, err, "GPU 1: Insufficient Permissions (4)")
	assert.Len(t, got.Devices, 1)
}

func TestDevicesAreNotHeldAgainstAnUnbind(t *testing.T) {
	idle := strings.ReplaceAll(fakenvml.Scenario("h100"), "utilization 100 55", "utilization 0 0")
	for _, tt := range []struct {
		name string
		hold Hold
		gpus string
		held int
	}{
		{"idle", HoldBusy, idle, 0},
		{"a process", HoldBusy, idle + "process c 1 2 3 4\n", 1},
		{"processes that are not to be seen", HoldBusy, fakenvml.Scenario("h100"), 1},
		{"always", HoldAlways, idle, 1},
		{"never", HoldNever, idle + "process c 1 2 3 4\n", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, g := newSource(t, tt.hold, tt.gpus, func(Event) {})
			for i := range 3 {
				got, err := s.Snapshot(at.Add(time.Duration(i) * 10 * time.Second))
				require.NoError(t, err)
				require.Len(t, got.Devices, 1)
				sessions, samples := g.Held()
				assert.Equal(t, tt.held, sessions)
				assert.Equal(t, 2*tt.held, samples, "GPM compares with a sample of the session")
			}
			require.NoError(t, s.Close())
			sessions, samples := g.Held()
			assert.Zero(t, sessions)
			assert.Zero(t, samples)
		})
	}
}

func TestWhatProcessesDidSinceTheLastTime(t *testing.T) {
	s, g := newSource(t, HoldAlways, sampled(fakenvml.Scenario("a100"), at), nil)
	got, err := s.Snapshot(at)
	require.NoError(t, err)
	assert.Equal(t, []Process{
		{PID: 100, Memory: 1 << 30, Utilization: map[string]float64{"sm": 0.5, "mem": 0.2, "enc": 0, "dec": 0}},
		{PID: 200, Memory: 2 << 30, Utilization: map[string]float64{"sm": 0.2, "mem": 0.05, "enc": 0.01, "dec": 0.02}},
		{PID: 300, Memory: 0, Utilization: map[string]float64{"sm": 0, "mem": 0, "enc": 0, "dec": 0}},
	}, got.Devices[0].Processes, "a process is listed once, and samples that cannot be are left out")
	g.Append(fmt.Sprintf("sample 300 %d 7 0 0 0\n", at.Add(5*time.Second).UnixMicro()))
	got, err = s.Snapshot(at.Add(10 * time.Second))
	require.NoError(t, err)
	for _, p := range got.Devices[0].Processes {
		want := 0.0
		if p.PID == 300 {
			want = 0.07
		}
		assert.InDelta(t, want, p.Utilization["sm"], 1e-9, "%d: a sample counts once", p.PID)
	}
}

func TestEventsComeAsTheyHappen(t *testing.T) {
	events := make(chan Event, 5000)
	s, g := newSource(t, HoldAlways, fakenvml.Node(2, 1), func(e Event) { events <- e })
	_, err := s.Snapshot(at)
	require.NoError(t, err)
	next := func() Event {
		select {
		case e := <-events:
			e.Time = time.Time{}
			return e
		case <-time.After(10 * time.Second):
			t.Fatal("no event")
			return Event{}
		}
	}
	g.Append("event 1 8 79 4294967295 4294967295\nevent 0 2 0 4294967295 4294967295\nevent 0 8 31 3 0\nevent 0 16 0 0 0\n")
	want := Event{Type: XID, UUID: "GPU-b1000000-0000-0000-0000-000000000001", PCI: "00000000:1B:00.0", Code: 79, GPUInstance: None, ComputeInstance: None}
	assert.Equal(t, want, next())
	want.Type, want.UUID, want.Code = DoubleBitECC, "GPU-b1000000-0000-0000-0000-000000000000", 0
	assert.Equal(t, want, next())
	want.Type, want.Code, want.GPUInstance, want.ComputeInstance = XID, 31, 3, 0
	assert.Equal(t, want, next())

	// A storm: none is lost.
	var storm strings.Builder
	for range 3000 {
		storm.WriteString("event 0 8 94 4294967295 4294967295\n")
	}
	g.Append(storm.String())
	for range 3000 {
		assert.EqualValues(t, 94, next().Code)
	}
	require.NoError(t, s.Close())
	g.Append("event 0 8 13 4294967295 4294967295\n")
	assert.Empty(t, events, "who has closed it hears no more")
}

func TestADriverThatGoesEndsTheWaitForEvents(t *testing.T) {
	s, g := newSource(t, HoldAlways, fakenvml.Scenario("a100"), func(Event) {})
	_, err := s.Snapshot(at)
	require.NoError(t, err)
	waiting := s.session
	g.Set("init 9\n")
	waiting.wg.Wait()
	_, err = s.Snapshot(at.Add(10 * time.Second))
	require.ErrorIs(t, err, errLost)
}

func TestClosingWaitsForNobody(t *testing.T) {
	s, _ := newSource(t, HoldAlways, fakenvml.Scenario("a100"), nil)
	require.NoError(t, s.Close(), "it was never opened")
}

// usage is what a leak would have grow.
func usage(t *testing.T) (goroutines, files, mappings, residentKiB int) {
	t.Helper()
	runtime.GC()
	fds, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	maps, err := os.ReadFile("/proc/self/maps")
	require.NoError(t, err)
	status, err := os.ReadFile("/proc/self/status")
	require.NoError(t, err)
	_, rss, _ := strings.Cut(string(status), "VmRSS:")
	_, err = fmt.Sscan(rss, &residentKiB)
	require.NoError(t, err)
	return runtime.NumGoroutine(), len(fds), strings.Count(string(maps), fakenvml.Name), residentKiB
}

// A day of scrapes every 10 s, in which the driver goes away and comes back every hour and the GPUs are idle for half of it.
func TestADayOfScrapesLeaksNothing(t *testing.T) {
	busy, idle := fakenvml.Node(2, 8), strings.ReplaceAll(fakenvml.Node(2, 0), "utilization 100 55", "utilization 0 0")
	s, g := newSource(t, HoldBusy, busy, func(Event) {})
	scrapes := 0
	day := func(hours int) {
		for hour := range hours {
			g.Set(busy)
			if hour%2 == 1 {
				g.Set(idle)
			}
			for i := range 360 {
				if i == 350 {
					g.Set("init 9\n")
				}
				scrapes++
				_, err := s.Snapshot(at.Add(time.Duration(scrapes) * 10 * time.Second))
				if i < 340 && i > 20 {
					require.NoError(t, err)
				} else if err != nil {
					require.True(t, errors.Is(err, errLost) || errors.Is(err, ErrAbsent), err)
				}
			}
		}
	}
	day(4)
	goroutines, files, mappings, resident := usage(t)
	day(24)
	gotGoroutines, gotFiles, gotMappings, gotResident := usage(t)
	assert.LessOrEqual(t, gotGoroutines, goroutines)
	assert.LessOrEqual(t, gotFiles, files)
	assert.Equal(t, mappings, gotMappings, "the library is mapped once")
	assert.Less(t, gotResident, resident+8<<10, "KiB")
	t.Logf("after %d scrapes: %d goroutines, %d files, %d mappings of the library, %d KiB (before: %d KiB)",
		scrapes, gotGoroutines, gotFiles, gotMappings, gotResident, resident)
}

func BenchmarkSnapshot(b *testing.B) {
	s, _ := newSource(b, HoldAlways, fakenvml.Node(8, 8), func(Event) {})
	now := time.Now()
	for b.Loop() {
		now = now.Add(10 * time.Second)
		got, err := s.Snapshot(now)
		require.NoError(b, err)
		require.Len(b, got.Devices, 8)
	}
}
