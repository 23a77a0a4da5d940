package engine

import (
	"bytes"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/syscalls"
)

// only gives a policy to one number of the native ABI.
func only(number int32, p Policy) func(syscalls.Call) Policy {
	return policies(map[int32]Policy{number: p})
}

func policies(byNumber map[int32]Policy) func(syscalls.Call) Policy {
	return func(c syscalls.Call) Policy {
		if c.ABI != abis()[0] {
			return Policy{}
		}
		return byNumber[c.Number]
	}
}

// readAll returns the events that are in the ring buffer.
func (e *Engine) readAll(t testing.TB) (events []Event) {
	t.Helper()
	require.NoError(t, e.Flush())
	require.NoError(t, e.ReadEvents(func(ev *Event) {
		kept := *ev
		kept.Comm, kept.Text = bytes.Clone(ev.Comm), bytes.Clone(ev.Text)
		events = append(events, kept)
	}))
	return events
}

func samplings(events []Event) (all []uint32) {
	for _, ev := range events {
		all = append(all, ev.Sampling)
	}
	return all
}

func TestTheFirstOfAnIntervalAndOneInN(t *testing.T) {
	e := newEngine(t, Options{RingBufferSize: 1 << 20, SelfEvents: true, Policy: policies(map[int32]Policy{
		unused: {Sampling: 100}, unused2: {}, unix.SYS_GETPPID: {Sampling: 1}, -1: {Sampling: 10},
	})})
	onCPU(t, 0)
	g := newGroup(t)
	g.enter(t)
	// Others of the host ask for their parent too.
	own := func() []Event {
		return slices.DeleteFunc(e.readAll(t), func(ev Event) bool { return ev.CgroupID != g.id })
	}
	for range 2 { // intervals
		call(unused, 250)
		assert.Equal(t, []uint32{1, 100, 100}, samplings(own()), "the first, then one in 100")
		call(unused2, 250)
		assert.Empty(t, own())
		call(5000, 25)
		assert.Equal(t, []uint32{1, 10, 10}, samplings(own()), "also of numbers without a row")
		drained(t, e)
	}
	call(unused, 1)
	before := monotonic(t)
	call(unix.SYS_GETPPID, 3)
	after := monotonic(t)
	events := own()
	require.Len(t, events, 4)
	for _, ev := range events[1:] {
		assert.Equal(t, syscalls.Call{ABI: abis()[0], Number: unix.SYS_GETPPID}, ev.Call)
		assert.EqualValues(t, unix.Gettid(), ev.TID)
		assert.EqualValues(t, 1, ev.Sampling)
		assert.Equal(t, TextNone, ev.State)
		assert.GreaterOrEqual(t, ev.Time, before)
		assert.LessOrEqual(t, ev.Time, after)
	}
}

func monotonic(t testing.TB) uint64 {
	t.Helper()
	var ts unix.Timespec
	require.NoError(t, unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts))
	return uint64(ts.Nano())
}

func TestWhatIsReadOfAParameter(t *testing.T) {
	long := strings.Repeat("/directory", 20)
	socket := append([]byte{unix.AF_UNIX, 0}, long...)
	e := newEngine(t, Options{RingBufferSize: 1 << 20, SelfEvents: true, Policy: policies(map[int32]Policy{
		unused: {Sampling: 1, Text: 2}, unused2: {Sampling: 1, Text: 2, Bytes: true},
	})})
	const nobodys = uintptr(1)
	tests := map[string]struct {
		number uintptr
		from   []byte // nil: nobody's memory
		n      uintptr
		text   string
		state  TextState
	}{
		"a string":            {unused, []byte("/etc/passwd\x00"), 0, "/etc/passwd", TextWhole},
		"an empty string":     {unused, []byte{0}, 0, "", TextWhole},
		"as much as there is": {unused, []byte(long[:MaxText-1] + "\x00"), 0, long[:MaxText-1], TextWhole},
		"one too many":        {unused, []byte(long[:MaxText] + "\x00"), 0, long[:MaxText-1], TextCut},
		"far too many":        {unused, []byte(long + "\x00"), 0, long[:MaxText-1], TextCut},
		"no pointer":          {unused, nil, 0, "", TextUnreadable},
		"bytes":               {unused2, socket, 16, string(socket[:16]), TextWhole},
		"all that fit":        {unused2, socket, MaxText, string(socket[:MaxText]), TextWhole},
		"more than fit":       {unused2, socket, MaxText + 1, string(socket[:MaxText]), TextCut},
		"no bytes":            {unused2, nil, 0, "", TextWhole},
		"nobody's bytes":      {unused2, nil, 16, "", TextUnreadable},
		"a length below 0":    {unused2, socket, ^uintptr(0), string(socket[:MaxText]), TextCut},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			from := nobodys
			memory := bytes.Clone(tt.from) // written to, and so there
			if memory != nil {
				from = uintptr(unsafe.Pointer(&memory[0]))
			}
			_, _, _ = unix.RawSyscall6(tt.number, 11, from, tt.n, 14, 15, 16)
			runtime.KeepAlive(memory)
			events := e.readAll(t)
			require.Len(t, events, 1)
			assert.Equal(t, tt.text, string(events[0].Text))
			assert.Equal(t, tt.state, events[0].State)
			assert.Equal(t, [6]uint64{11, uint64(from), uint64(tt.n), 14, 15, 16}, events[0].Args)
		})
	}
}

func TestOwnEventsAreLeftOut(t *testing.T) {
	e := newEngine(t, Options{RingBufferSize: 1 << 20, Policy: only(unused, Policy{Sampling: 1})})
	g := newGroup(t)
	g.enter(t)
	call(unused, 3)
	other := newGroup(t)
	other.run(t, "500:2")
	for _, ev := range e.readAll(t) {
		assert.Equal(t, other.id, ev.CgroupID)
		assert.EqualValues(t, 1, ev.Sampling)
	}
	assert.EqualValues(t, 3, drained(t, e).of(g, unused).Calls, "but they are counted")
}

// What is read without being asked for: nothing wakes the reader for a single event.
func TestAnEventComesByItself(t *testing.T) {
	e := newEngine(t, Options{RingBufferSize: 1 << 20, SelfEvents: true, Policy: only(unused, Policy{Sampling: 1})})
	events, ended := make(chan uint64, 10), make(chan error)
	go func() { ended <- e.ReadEvents(func(ev *Event) { events <- ev.Time }) }()
	for range 3 {
		call(unused, 1)
		select {
		case at := <-events:
			assert.Less(t, time.Duration(monotonic(t)-at), patience/2)
		case <-time.After(patience):
			t.Fatal("no event")
		}
	}
	require.NoError(t, e.Close())
	require.NoError(t, <-ended)
}

func TestAFullRingBuffer(t *testing.T) {
	const calls = 1000
	e := newEngine(t, Options{SelfEvents: true, Policy: only(unused, Policy{Sampling: 1, Always: true})})
	g := newGroup(t)
	g.enter(t)
	call(unused, calls)
	loss, err := e.Losses()
	require.NoError(t, err)
	events := e.readAll(t)
	assert.Greater(t, len(events), 10)
	assert.EqualValues(t, calls-len(events), loss.Events)
	assert.Zero(t, loss.Thinned)
	assert.Zero(t, loss.Calls)
	c := counts{}
	c.drain(t, e)
	assert.EqualValues(t, calls, c.of(g, unused).Calls)
}

// A call that could not be counted is not the first of its kind for that: there would be no end of events.
func TestALostCallIsNotTheFirst(t *testing.T) {
	e := newEngine(t, Options{RingBufferSize: 1 << 20, SelfEvents: true, rows: 1, overflow: 1, Policy: only(-1, Policy{Sampling: 1 << 20})})
	newGroup(t).enter(t)
	for number := 600; number < 620; number++ {
		call(number, 50)
	}
	loss, err := e.Losses()
	require.NoError(t, err)
	assert.Greater(t, loss.Calls, uint64(900))
	assert.LessOrEqual(t, len(e.readAll(t)), 1)
}

// Above 80 % of the ring buffer events are thinned out, so that those that count find room.
func TestEventsGiveWay(t *testing.T) {
	const calls = 1000
	e := newEngine(t, Options{RingBufferSize: 64 << 10, SelfEvents: true, Policy: policies(map[int32]Policy{
		unused: {Sampling: 1}, unused2: {Sampling: 1, Always: true},
	})})
	onCPU(t, 0)
	call(unused, calls)
	assert.Greater(t, e.RingBufferUtilization(), 0.8)
	call(unused2, 10)
	loss, err := e.Losses()
	require.NoError(t, err)
	assert.Zero(t, loss.Events, "the rest of the ring buffer is for the others")
	always, thinned := 0, 0
	events := e.readAll(t)
	for _, ev := range events {
		if ev.Call.Number == unused2 {
			always++
		}
		if ev.Sampling == Thinning {
			thinned++
		}
	}
	assert.Equal(t, 10, always)
	assert.NotZero(t, thinned, "those that are let through stand for those that are not")
	assert.EqualValues(t, calls+always-len(events), loss.Thinned)

	call(unused, 50)
	assert.Len(t, e.readAll(t), 50, "there is room again")
}

// A process that lives for a moment is told of by the path that it was started with.
func TestAProcessThatEndsAtOnce(t *testing.T) {
	e := newEngine(t, Options{RingBufferSize: 1 << 20, Policy: only(unix.SYS_EXECVE, Policy{Sampling: 1, Always: true, Text: 1})})
	g := newGroup(t)
	path, err := os.Executable()
	require.NoError(t, err)
	cmd := g.command(t, path, envCalls+"="+"500:3")
	require.NoError(t, cmd.Run())
	var own []Event
	for _, ev := range e.readAll(t) {
		if ev.CgroupID == g.id {
			own = append(own, ev)
		}
	}
	// The new process is this one's child until it has called execve, and so no longer this one.
	require.Len(t, own, 1)
	assert.Equal(t, path, string(own[0].Text))
	assert.EqualValues(t, cmd.Process.Pid, own[0].PID)
	assert.EqualValues(t, 3, drained(t, e).of(g, unused).Calls)
}

func TestPoliciesThatCannotBe(t *testing.T) {
	for _, p := range []Policy{{Sampling: 1 << 24}, {Sampling: 1, Text: 7}, {Sampling: 1, Text: 6, Bytes: true}} {
		_, err := New(Options{Policy: only(257, p)})
		assert.ErrorContains(t, err, "policy of "+syscalls.Call{ABI: abis()[0], Number: 257}.Name())
	}
}
