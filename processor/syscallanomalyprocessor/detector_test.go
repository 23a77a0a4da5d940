package syscallanomalyprocessor

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/consumer/consumertest"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/processor/processortest"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/syscalls"
	"github.com/orb8/orb8/processor/syscallanomalyprocessor/internal/metadata"
)

func TestNewCallsAreToldAfterLearning(t *testing.T) {
	h := newHarness(t, testConfig())
	calls := map[string]uint64{"read": 10, "i386/write": 2, "999": 1}
	h.learn(cart("a"), calls)
	assert.Empty(t, h.counts(cart("b-of-the-same-owner"), calls), "a new pod of a workload that is known")

	found := h.counts(cart("b-of-the-same-owner"), map[string]uint64{"read": 1, "i386/read": 3})
	require.Equal(t, []string{"never_seen_call"}, rulesOf(found))
	assert.Equal(t, syscalls.Call{ABI: syscalls.I386, Number: 3}, found[0].Call, "the same call of another ABI is another call")
	assert.EqualValues(t, 3, found[0].Calls)
	assert.Nil(t, found[0].Evidence)
	assert.Equal(t, h.time, found[0].Time)
	assert.Equal(t, syscalls.SeverityInfo, found[0].Severity)
	assert.Equal(t, "shop/cart/app called read 3 times: its workload never made this call while it was learned", found[0].Message)
	assert.Empty(t, h.counts(cart("a"), map[string]uint64{"i386/read": 3}), "it is known now")

	found = h.counts(cart("a"), map[string]uint64{"1000": 1})
	require.Len(t, found, 1)
	assert.Equal(t, "1000", found[0].Call.Name(), "a number without a name")

	found = h.event(cart("a"), "app openat pathname=/tmp/x flags=O_RDONLY")
	require.Equal(t, []string{"never_seen_call"}, rulesOf(found))
	assert.Equal(t, "shop/cart/app: app called openat(pathname=/tmp/x, flags=O_RDONLY): its workload never made this call while it was learned", found[0].Message)
	require.NotNil(t, found[0].Evidence)
	assert.Equal(t, "/tmp/x", found[0].Evidence.Arguments[0].Value)
	assert.Empty(t, h.counts(cart("a"), map[string]uint64{"openat": 1}), "it was told by its event")
	assert.EqualValues(t, 3, h.metric("anomalies", "rule", "never_seen_call", "severity", "info"))

	assert.Empty(t, h.event(cart("a"), "app exit_group status=0"), "an end is no news")
	assert.Empty(t, h.counts(cart("a"), map[string]uint64{"exit_group": 1, "rt_sigreturn": 1}))
	assert.EqualValues(t, 2, h.metric("suppressed", "rule", "never_seen_call", "reason", "exception"))
	assert.Empty(t, h.counts(cart("a"), map[string]uint64{"sched_yield": 1, "tgkill": 2}), "a busy machine is no news")
	assert.EqualValues(t, 4, h.metric("suppressed", "rule", "never_seen_call", "reason", "exception"))
}

func TestLearningNeedsTimeAndIntervals(t *testing.T) {
	cfg := testConfig()
	cfg.Learning = Learning{Window: time.Hour, MinIntervals: 3}
	h := newHarness(t, cfg)
	assert.Empty(t, h.counts(cart("a"), map[string]uint64{"read": 1}))
	h.time = h.time.Add(2 * time.Hour)
	assert.Empty(t, h.counts(cart("a"), map[string]uint64{"write": 1}), "the window has passed, but one interval is not enough")
	assert.Empty(t, h.counts(cart("a"), map[string]uint64{"close": 1}))
	assert.Equal(t, []string{"never_seen_call"}, rulesOf(h.counts(cart("a"), map[string]uint64{"open": 1})))

	h = newHarness(t, cfg)
	for range 10 {
		assert.Empty(t, h.counts(cart("a"), map[string]uint64{"read": 1}))
	}
	h.time = h.time.Add(time.Hour - 1)
	assert.Empty(t, h.counts(cart("a"), map[string]uint64{"write": 1}), "intervals enough, but not the window")
	h.time = h.time.Add(1)
	assert.Equal(t, []string{"never_seen_call"}, rulesOf(h.counts(cart("a"), map[string]uint64{"open": 1})))
}

// TestSensitiveCallsWhileLearning: what is grave is told although nothing is known yet.
func TestSensitiveCallsWhileLearning(t *testing.T) {
	h := newHarness(t, testConfig())
	steps := []struct {
		event string
		want  []string
	}{
		{"x io_uring_setup entries=1", nil},
		{"x mount source=a", []string{"mount"}},
		{"x mount source=a", nil},
		{"x finit_module fd=3", []string{"module_load"}},
		{"x finit_module fd=3", []string{"module_load"}},
		{"x kexec_load flags=0", []string{"kexec"}},
	}
	for _, s := range steps {
		assert.Equal(t, s.want, rulesOf(h.event(cart("a"), s.event)), s.event)
		h.time = h.time.Add(h.d.cfg.Cooldown)
	}
	h.learn(cart("a"), map[string]uint64{"read": 1})
	// From now on this is usual for the workload: but not another kernel, and not for others.
	for _, event := range []string{"x io_uring_setup entries=1", "x mount source=a", "x finit_module fd=3"} {
		assert.Equal(t, []string{"never_seen_call"}, rulesOf(h.event(cart("a"), event)), "events are no counts, from which profiles learn")
		assert.Empty(t, h.event(cart("a"), event), event)
	}
	assert.Equal(t, []string{"kexec"}, rulesOf(h.event(cart("a"), "x kexec_load flags=0")))
	assert.Equal(t, []string{"unmount"}, rulesOf(h.event(cart("a"), "x umount2 target=/")))
	other := cart("a")
	other[flow.AttrContainer] = "sidecar"
	assert.Equal(t, []string{"mount"}, rulesOf(h.event(other, "x mount source=a")))
	assert.EqualValues(t, 1, h.metric("suppressed", "rule", "io_uring", "reason", "learning"))
	assert.EqualValues(t, 1, h.metric("suppressed", "rule", "mount", "reason", "learning"))
	assert.NotZero(t, h.metric("suppressed", "rule", "mount", "reason", "usual"))
}

func TestCooldown(t *testing.T) {
	h := builtin(t)
	require.Len(t, h.event(cart("a"), "x mount source=a"), 1)
	for range 3 {
		h.time = h.time.Add(time.Second)
		assert.Empty(t, h.event(cart("b-another-pod"), "x mount source=a"))
	}
	assert.Len(t, h.event(cart("a"), "x fsopen fsname=ext4"), 1, "another call")
	h.time = h.time.Add(h.d.cfg.Cooldown)
	found := h.event(cart("a"), "x mount source=a")
	require.Len(t, found, 1)
	assert.Contains(t, found[0].Message, "(3 more like it were held back since the last report)")
	assert.EqualValues(t, 3, h.metric("suppressed", "rule", "mount", "reason", "cooldown"))
}

// TestCountsTellWhatEventsDidNot: counts are exact, events may be lost.
func TestCountsTellWhatEventsDidNot(t *testing.T) {
	h := builtin(t)
	found := h.counts(cart("a"), map[string]uint64{"setns": 2, "ptrace": 5, "read": 9})
	require.Equal(t, []string{"namespace_enter"}, rulesOf(found), "the rule of ptrace asks for an argument, and that counts do not have")
	assert.EqualValues(t, 2, found[0].Calls)
	assert.Nil(t, found[0].Evidence)
	assert.Equal(t, "shop/cart/app called setns 2 times: it enters a namespace of another process", found[0].Message)

	// runc's are excused by the name of its process, which only their events tell.
	h = builtin(t)
	assert.Empty(t, h.event(cart("a"), "runc:[1:CHILD] setns fd=3"))
	h.time = h.time.Add(time.Second)
	assert.Empty(t, h.counts(cart("a"), map[string]uint64{"setns": 1}))
	h.time = h.time.Add(testInterval)
	assert.Equal(t, []string{"namespace_enter"}, rulesOf(h.counts(cart("a"), map[string]uint64{"setns": 1})), "an interval later it was another")

	// Nor is it news that runc makes a call that the workload does not.
	h = newHarness(t, testConfig())
	h.learn(cart("a"), map[string]uint64{"read": 1})
	assert.Empty(t, h.event(cart("a"), "runc:[2:INIT] keyctl operation=KEYCTL_JOIN_SESSION_KEYRING"))
	assert.Empty(t, h.counts(cart("a"), map[string]uint64{"keyctl": 1}))
	h.time = h.time.Add(testInterval)
	assert.Equal(t, []string{"never_seen_call"}, rulesOf(h.event(cart("a"), "app keyctl operation=KEYCTL_READ")), "the workload itself never made it")
}

func TestRate(t *testing.T) {
	quiet := map[string]uint64{"clone": 10, "read": 1000, "epoll_wait": 1000}
	learned := func() *harness {
		h := newHarness(t, testConfig())
		h.learn(cart("a"), quiet)
		return h
	}
	h := learned()
	assert.Empty(t, h.counts(cart("a"), map[string]uint64{"clone": 30, "read": 1000, "epoll_wait": 1000}), "a little more")
	assert.Empty(t, h.counts(cart("a"), map[string]uint64{"clone": 1000, "read": 100_000, "epoll_wait": 100_000}), "load: all calls are more")
	found := h.counts(cart("a"), map[string]uint64{"clone": 5000, "read": 1000, "epoll_wait": 1000})
	require.Equal(t, []string{"unusual_rate"}, rulesOf(found))
	assert.EqualValues(t, 1000, found[0].Rate)
	assert.Greater(t, found[0].Baseline, 2.0)
	assert.Less(t, found[0].Baseline, 6.0)
	assert.EqualValues(t, 5000, found[0].Calls)
	assert.Regexp(t, `^shop/cart/app made clone 1000 times a second, usual are \d\.\d+: a burst of what starts`, found[0].Message)
	assert.Empty(t, h.counts(cart("a"), map[string]uint64{"read": 900_000}), "nobody asks how often a file is read")

	// A level that stays becomes usual, and one burst does not.
	h = learned()
	burst := map[string]uint64{"clone": 5000, "read": 1000}
	require.Len(t, h.counts(cart("a"), burst), 1)
	h.time = h.time.Add(h.d.cfg.Cooldown)
	require.Len(t, h.counts(cart("a"), burst), 1)
	reports := 0
	for range 5000 {
		h.time = h.time.Add(h.d.cfg.Cooldown)
		reports += len(h.counts(cart("a"), burst))
	}
	assert.Less(t, reports, 3000)
	assert.Empty(t, h.counts(cart("a"), burst))

	// The last interval of a receiver may be a moment.
	h = learned()
	ld, records := newLogs(cart("a"))
	(&syscalls.Counts{Start: h.time.Add(-time.Millisecond), End: h.time, Calls: []syscalls.Count{{Call: callOf(t, "clone"), Calls: 10}}}).
		PutTo(records.AppendEmpty(), syscalls.X86_64)
	assert.Empty(t, h.consume(ld))
}

func TestSequences(t *testing.T) {
	memfd, exec := "x memfd_create name=a", "x execve pathname=/proc/self/fd/3"
	fileless := []string{"fileless_execution"}

	h := builtin(t)
	h.event(cart("a"), memfd)
	h.time = h.time.Add(time.Minute)
	found := h.event(cart("a"), exec)
	require.Equal(t, fileless, rulesOf(found))
	assert.Contains(t, found[0].Message, "execve(pathname=/proc/self/fd/3) 1m0s after memfd_create(name=a): it runs")

	h = builtin(t)
	h.event(cart("a"), memfd)
	found = h.event(cart("a"), "x execveat dirfd=3 pathname= flags=AT_EMPTY_PATH")
	require.Equal(t, fileless, rulesOf(found))
	assert.Contains(t, found[0].Message, `execveat(dirfd=3, pathname="", flags=AT_EMPTY_PATH) 0s after memfd_create(name=a)`)

	h = builtin(t)
	h.event(cart("a"), memfd)
	h.time = h.time.Add(time.Minute + 1)
	assert.Empty(t, h.event(cart("a"), exec), "too late")

	h = builtin(t)
	h.event(cart("bb"), memfd)
	assert.Empty(t, h.event(cart("a"), exec), "another container")

	// Many others do not hide the one that counts.
	h = builtin(t)
	h.event(cart("a"), memfd)
	for i := range 10 * maxSteps {
		h.event(cart("a"), fmt.Sprintf("x chmod pathname=/tmp/%d mode=0755", i))
	}
	assert.Equal(t, fileless, rulesOf(h.event(cart("a"), exec)))
	assert.Equal(t, []string{"dropped_execution"}, rulesOf(h.event(cart("a"), fmt.Sprintf("x execve pathname=/tmp/%d", 10*maxSteps-1))))
	key := containerKey{"node-1", 1001}
	assert.LessOrEqual(t, len(h.d.containers.get(key).steps), 1+maxSteps)

	// same: process.
	h = builtin(t)
	h.event(cart("a"), "x connect sockfd=3 addr=192.0.2.1:4444")
	ld, records := newLogs(cart("a"))
	e := h.eventOf("x dup2 oldfd=3 newfd=0")
	e.Identity.PID = 12
	e.PutTo(records.AppendEmpty())
	assert.Empty(t, h.consume(ld))
}

// TestOtherRecordsAreLeftAlone: they pass as they are, and what is out of the ordinary comes after them.
func TestOtherRecordsAreLeftAlone(t *testing.T) {
	h := builtin(t)
	ld, records := newLogs(cart("a"))
	records.AppendEmpty().SetEventName(flow.EventNameFlow)
	records.At(0).Attributes().PutInt(flow.AttrBytes, 7)
	h.eventOf("x mount source=a").PutTo(records.AppendEmpty())
	h.countsOf(map[string]uint64{"read": 1}).PutTo(records.AppendEmpty(), syscalls.X86_64)
	(&syscalls.Status{}).PutTo(records.AppendEmpty())
	ld.ResourceLogs().AppendEmpty().ScopeLogs().AppendEmpty().LogRecords().AppendEmpty().Body().SetStr("text")
	marshaler := plog.ProtoMarshaler{}
	before, err := marshaler.MarshalLogs(ld)
	require.NoError(t, err)

	require.Len(t, h.consume(ld), 1)
	require.Equal(t, 2, ld.ResourceLogs().At(0).ScopeLogs().Len())
	ld.ResourceLogs().At(0).ScopeLogs().RemoveIf(func(sl plog.ScopeLogs) bool { return sl.Scope().Name() == metadata.ScopeName })
	after, err := marshaler.MarshalLogs(ld)
	require.NoError(t, err)
	assert.Equal(t, before, after)
}

func TestMalformedRecordsPass(t *testing.T) {
	h := builtin(t)
	ld, records := newLogs(cart("a"))
	records.AppendEmpty().SetEventName(syscalls.EventNameEvent)
	h.countsOf(map[string]uint64{"read": 1}).PutTo(records.AppendEmpty(), syscalls.X86_64)
	records.At(1).Attributes().PutEmptyMap(syscalls.AttrCalls).PutInt("vax/read", 1)
	h.eventOf("x read").PutTo(records.AppendEmpty())
	records.At(2).Attributes().PutStr(syscalls.AttrName, "frobnicate")
	(&syscalls.Counts{}).PutTo(records.AppendEmpty(), syscalls.X86_64)
	records.At(3).Attributes().PutStr(syscalls.AttrCalls, "many")
	assert.Empty(t, h.consume(ld))
	assert.Equal(t, 4, records.Len())
	assert.EqualValues(t, 3, h.metric("malformed_records"))
	assert.Equal(t, 2, h.logs.FilterMessageSnippet("could not be read").Len(), "once for events, once for counts")
}

func TestConditionErrorsAreCounted(t *testing.T) {
	cfg := testConfig()
	cfg.Rules.Custom = []Rule{{
		Name: "bad_type", Description: "x", Severity: "critical", Syscalls: []string{"mount"},
		Condition:  `HasPrefix(attributes["thread.id"], "1")`,
		Exceptions: []Exception{{Name: "never", Workloads: []string{"nobody"}}},
	}, {
		Name: "bad_exception", Description: "x", Severity: "critical", Syscalls: []string{"setns"},
		Exceptions: []Exception{{Name: "bad", Condition: `HasPrefix(attributes["thread.id"], "1")`}},
	}}
	h := newHarness(t, cfg)
	assert.Equal(t, []string{"mount"}, rulesOf(h.event(cart("a"), "x mount source=a")), "other rules go on")
	h.event(cart("a"), "x mount source=a")
	assert.EqualValues(t, 2, h.metric("condition_errors", "rule", "bad_type"))
	assert.Equal(t, []string{"bad_exception", "namespace_enter"}, rulesOf(h.event(cart("a"), "x setns fd=3")), "an exception that fails excuses nobody")
	assert.EqualValues(t, 1, h.metric("condition_errors", "rule", "bad_exception"))
	assert.Equal(t, 2, h.logs.FilterMessageSnippet("A condition could not be evaluated").Len(), "once a rule")
}

func TestExceptions(t *testing.T) {
	for name, tt := range map[string]struct {
		exception Exception
		excused   bool
	}{
		"workload":          {Exception{Workloads: []string{"shop/*"}}, true},
		"another workload":  {Exception{Workloads: []string{"shop"}}, false},
		"namespace":         {Exception{Namespaces: []string{"sh?p"}}, true},
		"another namespace": {Exception{Namespaces: []string{"kube-*", ""}}, false},
		"container":         {Exception{Containers: []string{"app"}}, true},
		"container by name": {Exception{Containers: []string{"cart-*"}}, true},
		"image":             {Exception{Images: []string{"registry:5000/shop/*"}}, true},
		"cgroup":            {Exception{Cgroups: []string{"/kubepods.slice/*"}}, true},
		"unit":              {Exception{Units: []string{"*"}}, false},
		"process":           {Exception{Processes: []string{"moun*"}}, true},
		"another process":   {Exception{Processes: []string{"runc"}}, false},
		"host":              {Exception{Host: true}, false},
		"call":              {Exception{Syscalls: []string{"mount"}, Processes: []string{"mounter"}}, true},
		"another call":      {Exception{Syscalls: []string{"umount2"}, Processes: []string{"mounter"}}, false},
		"condition":         {Exception{Condition: `attributes["orb8.syscall.arguments"]["source"] == "proc"`}, true},
		"another condition": {Exception{Condition: `attributes["orb8.syscall.arguments"]["source"] == "sys"`}, false},
		"call of anybody":   {Exception{Syscalls: []string{"mount"}}, true},
		"all of it":         {Exception{Namespaces: []string{"shop"}, Processes: []string{"runc"}}, false},
		"another rule":      {Exception{Rules: []string{"unm*"}, Namespaces: []string{"shop"}}, false},
		"the rule":          {Exception{Rules: []string{"m*t"}, Namespaces: []string{"shop"}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig()
			tt.exception.Name = "test"
			cfg.Rules.Exceptions = []Exception{tt.exception}
			h := newHarness(t, cfg)
			resource := cart("a")
			resource[attrImage], resource[attrContainerName] = "registry:5000/shop/cart:1", "cart-app"
			resource[flow.AttrCgroupPath] = "/kubepods.slice/x"
			found := h.event(resource, "mounter mount source=proc")
			assert.Equal(t, tt.excused, len(found) == 0)
			if tt.excused {
				assert.EqualValues(t, 1, h.metric("suppressed", "rule", "mount", "reason", "exception"))
				if len(tt.exception.Processes) > 0 || tt.exception.Condition != "" {
					resource[flow.AttrCgroupID] = int64(1)
					assert.Len(t, h.counts(resource, map[string]uint64{"mount": 1}), 1, "nobody knows who called")
				}
			}
		})
	}
}

func TestProfilesAreBounded(t *testing.T) {
	cfg := testConfig()
	cfg.MaxProfiles = 2
	h := newHarness(t, cfg)
	calls := map[string]uint64{"read": 1}
	for _, name := range []string{"a.service", "b.service", "c.service", "d.service"} {
		h.counts(unit(name), calls)
		h.time = h.time.Add(time.Second)
	}
	assert.EqualValues(t, 2, h.metric("unprofiled_records"))
	assert.Len(t, h.d.profiles.byKey, 2)
	assert.Equal(t, 1, h.logs.FilterMessageSnippet("more workloads than max_profiles").Len())
	found := h.event(unit("d.service"), "x mount source=a")
	require.Equal(t, []string{"mount"}, rulesOf(found), "sensitive calls are told of all")
	assert.Equal(t, "unknown", found[0].Workload)

	h.time = h.time.Add(minIdle - 2*time.Second)
	h.counts(unit("b.service"), calls)
	h.counts(unit("c.service"), calls)
	assert.EqualValues(t, 1, h.metric("evicted_profiles", "cause", "displaced"), "a.service was silent for long enough")
	h.counts(unit("a.service"), calls)
	assert.EqualValues(t, 1, h.metric("evicted_profiles", "cause", "displaced"))

	h.time = h.time.Add(cfg.Expiry - minIdle)
	h.counts(unit("c.service"), calls)
	h.time = h.time.Add(minIdle + 1)
	h.d.sweep(t.Context())
	assert.EqualValues(t, 1, h.metric("evicted_profiles", "cause", "expired"))
	assert.Len(t, h.d.profiles.byKey, 1)
}

// TestNobodyFillsMemory: a workload can make any call, with any number, from any number of containers.
func TestNobodyFillsMemory(t *testing.T) {
	cfg := testConfig()
	cfg.Learning.MinIntervals = 1
	h := newHarness(t, cfg)
	h.learn(cart("a"), map[string]uint64{"read": 1})
	for i := range 3 * maxCooldowns {
		h.counts(cart("a"), map[string]uint64{fmt.Sprint(1000 + i): 1})
		h.event(cart("a"), fmt.Sprintf("x %d", 500_000+i))
	}
	p := h.d.profiles.byKey[string(h.d.naming.keyOf(mapOf(t, cart("a"))))]
	assert.Len(t, p.calls, maxCalls)
	assert.LessOrEqual(t, len(p.cooldowns), maxCooldowns)
	assert.LessOrEqual(t, len(h.d.containers.get(containerKey{"node-1", 1001}).recent), maxRecent)
	for i := range maxContainers + 10 {
		resource := cart("a")
		resource[flow.AttrCgroupID] = int64(i)
		h.event(resource, "x read fd=3")
	}
	assert.Equal(t, maxContainers, h.d.containers.lru.Len())
}

func TestPipelinesShareADetector(t *testing.T) {
	factory := NewFactory()
	cfg := testConfig()
	cfg.Learning = Learning{Window: time.Second, MinIntervals: 1}
	tel := componenttest.NewTelemetry()
	set := processortest.NewNopSettings(metadata.Type)
	set.TelemetrySettings = tel.NewTelemetrySettings()
	sinks := [2]*consumertest.LogsSink{{}, {}}
	var start, stop []func() error
	var wg sync.WaitGroup
	for _, sink := range sinks {
		p, err := factory.CreateLogs(t.Context(), set, cfg, sink)
		require.NoError(t, err)
		start = append(start, func() error { return p.Start(t.Context(), componenttest.NewNopHost()) })
		stop = append(stop, func() error { return p.Shutdown(t.Context()) })
		require.NoError(t, start[len(start)-1]())
		for i := range 4 {
			wg.Go(func() {
				for range 100 {
					ld, records := newLogs(cart(fmt.Sprint(i)))
					(&syscalls.Event{Time: time.Now(), Call: callOf(t, "setns")}).PutTo(records.AppendEmpty())
					assert.NoError(t, p.ConsumeLogs(t.Context(), ld))
				}
			})
		}
	}
	wg.Wait()
	m, err := tel.GetMetric("otelcol_processor_syscall_anomaly_profiles")
	require.NoError(t, err)
	assert.NotNil(t, m)
	told := 0
	for _, sink := range sinks {
		for _, ld := range sink.AllLogs() {
			told += ld.LogRecordCount()
		}
	}
	assert.Equal(t, 801, told, "eight hundred events and, of one workload, one anomaly")
	for _, f := range stop {
		assert.NoError(t, f())
	}
	assert.NoError(t, tel.Shutdown(t.Context()))
}
