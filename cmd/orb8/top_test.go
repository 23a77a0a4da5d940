package main

import (
	"encoding/csv"
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	tea "charm.land/bubbletea/v2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

// testNow is 15:06:07. An interval of 5 seconds and the 2 that a record may take are not in the window: it is from 15:05:50 to 15:06:00.
// worker-2 reports every 10 seconds only, but it is missing.
var (
	topUntil = testNow().Add(-7 * time.Second)
	topSince = topUntil.Add(-10 * time.Second)
)

// busy answers with pairs of pods, or with processes where pods are asked for and there are none.
func busy(pods bool) func(*orb8v1.AggregateRequest) *orb8v1.AggregateResponse {
	return func(req *orb8v1.AggregateRequest) *orb8v1.AggregateResponse {
		group := func(bytes, packets, connections, retransmits, errors uint64, names ...string) *orb8v1.AggregateGroup {
			if strings.HasSuffix(req.GetBy()[0], ".pod") && !pods {
				names = make([]string, len(names))
			}
			values := map[string]uint64{"bytes": bytes, "packets": packets, "connections": connections, "retransmits": retransmits, "errors": errors}
			g := &orb8v1.AggregateGroup{By: names[:len(req.GetBy())]}
			half, before := make([]uint64, 0, 5), make([]uint64, 0, 5)
			for _, m := range req.GetMeasures() {
				g.Values = append(g.Values, values[m]+9999)
				half, before = append(half, values[m]/2), append(before, 9999)
			}
			g.Buckets = []*orb8v1.AggregateBucket{
				// A record that began before the window, and was still going on in it.
				{Start: timestamppb.New(topSince.Add(-5 * time.Second)), Values: before},
				{Start: timestamppb.New(topSince), Values: half},
				{Start: timestamppb.New(topSince.Add(5 * time.Second)), Values: half},
			}
			return g
		}
		return &orb8v1.AggregateResponse{
			By: req.GetBy(), Measures: req.GetMeasures(), Total: group(3<<20, 4_000, 20, 10, 2, "", ""),
			Groups: []*orb8v1.AggregateGroup{
				group(0, 0, 0, 0, 0, "gone/pod", "gone/pod"),
				group(1<<20, 1_000, 20, 10, 2, "shop/web-0", "shop/cart-0"),
				group(2<<20, 3_000, 0, 0, 0, "shop/cart-7d9c5b8f6d-x2k7p", "shop/db-0"),
			},
			Lost: &orb8v1.Loss{Packets: 3}, MissingNodes: []string{"worker-2"},
		}
	}
}

func TestTopOnce(t *testing.T) {
	collector := &fakeCollector{aggregate: busy(true), status: cannedStatus()}
	agent := collector.serve(t)
	got := orb8(t, agent, strings.Fields("top --to svc/cart --not --port 53")...)
	assert.Zero(t, got.code)
	assertGolden(t, "top.txt", got.stdout)
	assert.Equal(t, "orb8: lost 3 packets: they are in no rate\norb8: no report from worker-2\n", got.stderr)
	want := &orb8v1.AggregateRequest{
		Signal: orb8v1.Signal_SIGNAL_FLOWS, Since: timestamppb.New(topSince), Until: timestamppb.New(topUntil),
		By: []string{"source.pod", "destination.pod"}, Measures: []string{"bytes", "packets", "connections", "retransmits", "errors"},
		Bucket: durationpb.New(5 * time.Second), Top: topGroups,
		Allow: []*orb8v1.FlowFilter{{Destination: &orb8v1.EndpointFilter{Services: []string{"cart"}}}}, Deny: []*orb8v1.FlowFilter{{Ports: []uint32{53}}},
	}
	assert.True(t, proto.Equal(want, collector.askedAggregate), "want %v, got %v", want, collector.askedAggregate)

	got = orb8(t, agent, "top", "--sort", "retransmits", "-o", "csv")
	records, err := csv.NewReader(strings.NewReader(got.stdout)).ReadAll()
	require.NoError(t, err)
	assert.Equal(t, [][]string{
		{"source.pod", "destination.pod", "bytesPerSecond", "packetsPerSecond", "connectionsPerSecond", "retransmitsPerSecond", "errorsPerSecond"},
		{"shop/web-0", "shop/cart-0", "104857.6", "100", "2", "1", "0.2"},
		{"shop/cart-7d9c5b8f6d-x2k7p", "shop/db-0", "209715.2", "300", "0", "0", "0"},
	}, records)
	var rows []map[string]any
	require.NoError(t, json.Unmarshal([]byte(orb8(t, agent, "top", "-o", "json").stdout), &rows))
	assert.InDelta(t, 300, rows[0]["packetsPerSecond"], 0)
}

// TestTopWithoutPods holds that a host without Kubernetes sees its processes, unless pods were asked for.
func TestTopWithoutPods(t *testing.T) {
	agent := (&fakeCollector{aggregate: busy(false), status: cannedStatus()}).serve(t)
	assert.Contains(t, orb8(t, agent, "top").stdout, "SOURCE.PROCESS")
	assert.Contains(t, orb8(t, agent, "top", "--by", "source.pod").stdout, "SOURCE.POD ")
}

func TestTopRefuses(t *testing.T) {
	for args, says := range map[string]string{
		"--sort latency": "use bytes, packets, connections, retransmits or errors",
		"--window 10ms":  "use a duration from 1s to 1h",
		"--window 2h":    "use a duration from 1s to 1h",
		"--every 1ms":    "use a duration of 200ms or more",
		"--not":          "--not denies the filter",
		"--by ,":         "use names such as source.pod",
	} {
		got := orb8(t, "127.0.0.1:1", append([]string{"top"}, strings.Fields(args)...)...)
		assert.Equal(t, exitUsage, got.code, args)
		assert.Contains(t, got.stderr, says, args)
	}
}

// topOn returns a model that has its first answer on a screen of this size.
func topOn(t *testing.T, collector *fakeCollector, width, height int) *topModel {
	t.Helper()
	a := &app{target: target{agent: collector.serve(t)}, now: testNow}
	t.Cleanup(a.close)
	m := newTopModel(topQuestion{sort: "bytes", window: defaultWindow, filters: &filters{allow: &choice{}}}, nil, time.Hour)
	m.app, m.ctx = a, t.Context()
	m.Update(tea.WindowSizeMsg{Width: width, Height: height})
	answerAll(m, m.ask())
	return m
}

// answerAll runs what a message asked for until nothing is to be asked any more.
func answerAll(m *topModel, cmd tea.Cmd) {
	for cmd != nil {
		msg, ok := cmd().(answerMsg)
		if !ok {
			return
		}
		_, cmd = m.Update(msg)
	}
}

func press(m *topModel, keys ...string) {
	for _, key := range keys {
		msg := tea.KeyPressMsg{Text: key}
		if letters := []rune(key); len(letters) == 1 {
			msg.Code = letters[0]
		}
		switch key {
		case "enter":
			msg = tea.KeyPressMsg{Code: tea.KeyEnter}
		case "esc":
			msg = tea.KeyPressMsg{Code: tea.KeyEscape}
		case "backspace":
			msg = tea.KeyPressMsg{Code: tea.KeyBackspace}
		case "ctrl+u":
			msg = tea.KeyPressMsg{Code: 'u', Mod: tea.ModCtrl}
		case "down":
			msg = tea.KeyPressMsg{Code: tea.KeyDown}
		}
		_, cmd := m.Update(msg)
		answerAll(m, cmd)
	}
}

func shown(m *topModel) string { return m.View().Content }

func TestTopKeys(t *testing.T) {
	collector := &fakeCollector{aggregate: busy(true), status: cannedStatus()}
	m := topOn(t, collector, 80, 12)
	assert.Contains(t, shown(m), "10s to 15:06:00  all 307 KiB/s, 400 packets/s")
	assert.Contains(t, shown(m), "by pods; sorted by bytes; lost 3 packets")
	assert.Less(t, strings.Index(shown(m), "db-0"), strings.Index(shown(m), "web-0"), "most bytes first")

	press(m, "s", "s", "s")
	assert.Equal(t, "retransmits", collector.askedAggregate.GetMeasures()[0])
	assert.Less(t, strings.Index(shown(m), "web-0"), strings.Index(shown(m), "db-0"), "most retransmits first")

	press(m, "g")
	assert.Equal(t, []string{"source.pod"}, collector.askedAggregate.GetBy())
	assert.Contains(t, shown(m), "by sending pods")

	press(m, "+")
	assert.Equal(t, 20*time.Second, collector.askedAggregate.GetUntil().AsTime().Sub(collector.askedAggregate.GetSince().AsTime()))
	press(m, "-", "-", "-")
	assert.Equal(t, 5*time.Second, collector.askedAggregate.GetUntil().AsTime().Sub(collector.askedAggregate.GetSince().AsTime()), "not below an interval")

	press(m, "p")
	assert.Contains(t, shown(m), "PAUSED")
	press(m, "p", "?")
	assert.Contains(t, shown(m), "next grouping")
	press(m, "esc")
	assert.NotContains(t, shown(m), "next grouping")
	_, cmd := m.Update(tea.KeyPressMsg{Code: 'q', Text: "q"})
	assert.IsType(t, tea.QuitMsg{}, cmd())
}

func TestTopFilter(t *testing.T) {
	collector := &fakeCollector{aggregate: busy(true), status: cannedStatus()}
	m := topOn(t, collector, 80, 12)
	press(m, "/")
	press(m, strings.Split("--port http", "")...)
	press(m, "enter")
	assert.Contains(t, shown(m), `"http" is no port`)
	press(m, "backspace", "backspace", "backspace", "backspace", "5", "3")
	assert.Contains(t, shown(m), "filter: --port 53█")
	press(m, strings.Split(" --not -l 'env in (a, b)'", "")...)
	press(m, "enter")
	assert.Equal(t, []uint32{53}, collector.askedAggregate.GetAllow()[0].GetPorts())
	assert.Equal(t, []string{"env in (a, b)"}, collector.askedAggregate.GetDeny()[0].GetLabels())
	assert.Contains(t, shown(m), "only --port 53 --not -l")
	for _, wrong := range []string{"web", "--help"} {
		press(m, "/", "ctrl+u", wrong, "enter")
		assert.Contains(t, shown(m), errNoFilter.Error(), wrong)
		press(m, "esc")
	}
	press(m, "/", "ctrl+u", "enter")
	assert.Empty(t, collector.askedAggregate.GetAllow())
	press(m, "/", "x", "esc", "g")
	assert.Empty(t, collector.askedAggregate.GetAllow(), "what was not taken has no effect")
}

// TestTopGoesOnWithoutItsCollector holds that the last rates stay, with what is wrong above them.
func TestTopGoesOnWithoutItsCollector(t *testing.T) {
	collector := &fakeCollector{aggregate: busy(true), status: cannedStatus()}
	m := topOn(t, collector, 80, 12)
	collector.err = errShort
	answerAll(m, m.ask())
	assert.Contains(t, shown(m), errShort.Error())
	assert.Contains(t, shown(m), "db-0")
	collector.err = nil
	answerAll(m, m.ask())
	assert.NotContains(t, shown(m), errShort.Error())
}

// TestTopAsksOnce holds that keys do not make it ask faster than a collector answers, and that the last word counts.
func TestTopAsksOnce(t *testing.T) {
	m := topOn(t, &fakeCollector{aggregate: busy(true), status: cannedStatus()}, 80, 12)
	_, first := m.Update(tea.KeyPressMsg{Code: 's', Text: "s"})
	require.NotNil(t, first)
	_, second := m.Update(tea.KeyPressMsg{Code: 's', Text: "s"})
	assert.Nil(t, second, "one question is under way")
	answerAll(m, first)
	assert.Equal(t, "connections", m.answer.question.sort)
}

// TestTopFits holds that no picture is larger than its screen, whatever is on it.
func TestTopFits(t *testing.T) {
	many := func(req *orb8v1.AggregateRequest) *orb8v1.AggregateResponse {
		reply := busy(true)(req)
		for range 50 {
			g := proto.CloneOf(reply.Groups[1])
			g.By[0] = strings.Repeat("namespace-of-many-letters/pod", 3) + "\x1b[2J"
			reply.Groups = append(reply.Groups, g)
		}
		return reply
	}
	for _, size := range [][2]int{{80, 24}, {100, 10}, {200, 60}, {80, 7}, {80, 3}, {80, 1}} {
		m := topOn(t, &fakeCollector{aggregate: many, status: cannedStatus()}, size[0], size[1])
		for _, keys := range [][]string{nil, {"down", "down"}, {"?"}, {"?", "/"}} {
			press(m, keys...)
			lines := strings.Split(shown(m), "\n")
			assert.LessOrEqual(t, len(lines), size[1])
			for _, line := range lines {
				assert.LessOrEqual(t, utf8.RuneCountInString(line), size[0], line)
				assert.NotContains(t, line, "\x1b[2J")
			}
		}
	}
}

func TestSplitWords(t *testing.T) {
	for text, want := range map[string][]string{
		"":                        nil,
		"  a  b ":                 {"a", "b"},
		`-l 'env in (a, b)' --x`:  {"-l", "env in (a, b)", "--x"},
		`--name="*.a b" ''`:       {"--name=*.a b", ""},
		`"it's" 'say "so"'`:       {"it's", `say "so"`},
		"--from shop/ --not --to": {"--from", "shop/", "--not", "--to"},
	} {
		got, err := splitWords(text)
		require.NoError(t, err, text)
		assert.Equal(t, want, got, text)
	}
	_, err := splitWords("'a")
	assert.ErrorContains(t, err, "a quote has no end")
}
