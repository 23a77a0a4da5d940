package main

import (
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/timestamppb"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

func TestShorten(t *testing.T) {
	tests := []struct {
		in    string
		width int
		want  string
	}{
		{"", 8, ""},
		{"curl:51234", 10, "curl:51234"},
		{"abcdefghij", 9, "abcd…ghij"},
		{"abcdefghij", 8, "abcd…hij"},
		{"cart-7d9c5b8f6d-x2k7p:45678", 18, "cart-7…x2k7p:45678"},
		{"[2001:db8::1:2:3:4]:443", 16, "[2001:…:3:4]:443"},
		{"übergrößenträger:80", 12, "über…äger:80"},
		{"abcdefghijklmnop:65535", 8, "a…:65535"},
		{"abcdef:65535", 6, "abc…35"},
		{"abc", 1, "…"},
		{"abc", 0, "…"},
		{"short -> a-very-long-destination:443", 26, "short -> a-very…nation:443"},
		{"a-very-long-source:443 -> short", 26, "a-very…source:443 -> short"},
		{"a-very-long-source:443 -> a-very-long-destination:443", 26, "a-v…rce:443 -> a-v…ion:443"},
		{"cart-0→10.96.100.100:80", 19, "cart-0→10.9….100:80"},
	}
	for _, tt := range tests {
		t.Run(tt.in, func(t *testing.T) {
			assert.Equal(t, tt.want, shorten(tt.in, tt.width))
		})
	}
}

func FuzzShorten(f *testing.F) {
	f.Add("cart-7d9c5b8f6d-x2k7p:45678", 18)
	f.Add("a -> b", 3)
	f.Add("\xff\xfe -> \xff:1", 5)
	f.Add(" ->  -> ", 7)
	f.Add("→→a→b:1", 4)
	f.Fuzz(func(t *testing.T, s string, width int) {
		got := shorten(s, width)
		assert.LessOrEqual(t, utf8.RuneCountInString(got), max(width, 1))
		if utf8.RuneCountInString(s) <= width {
			assert.Equal(t, s, got)
		}
	})
}

// awkward makes a row out of whatever makes lines long or odd.
func awkward(rnd *rand.Rand) row {
	pick := func(words ...string) string { return words[rnd.IntN(len(words))] }
	number := func() uint64 { return rnd.Uint64() >> rnd.IntN(64) }
	endpoint := func() *orb8v1.Endpoint {
		return &orb8v1.Endpoint{
			Address:     pick("10.0.0.1", "255.255.255.255", "2001:db8:85a3:8d3:1319:8a2e:370:7348", "::"),
			Port:        uint32(pick("\x00", "\x35", "\xff")[0]) * 257,
			Pod:         pick("", "", "web-0", strings.Repeat("very-long-pod-", 18), "pod:with:colons", "a -> b"),
			Container:   pick("", "", "nginx", strings.Repeat("c", 253)),
			ContainerId: pick("", strings.Repeat("0123456789abcdef", 4)),
			Cgroup:      pick("", "/", "/a.slice", "/system.slice/"+strings.Repeat("unit-", 40)+".service"),
			Process:     pick("", "init", "systemd-resolve", "進程進程進程進程進程", "\x1b[31mred\x1b[0m", "tab\tnl\n"),
			Pid:         rnd.Uint32(),
		}
	}
	when := timestamppb.New(testNow().Add(-time.Duration(rnd.Int64N(int64(1000 * day)))))
	return row{
		kind: orb8v1.EventKind(rnd.IntN(8)),
		time: when.AsTime(),
		flow: &orb8v1.Flow{
			Start: when, End: when, Node: pick("", "node"),
			Direction: orb8v1.Direction(rnd.IntN(4)),
			Transport: pick("tcp", "udp", "icmp", "ipv6-icmp", "sctp", "255", "no-such-transport", ""),
			Source:    endpoint(), Destination: endpoint(),
			Bytes: number(), Packets: number(), Connections: number(), Lost: number(),
			ConnectionId: "0123456789abcdef", TcpFlags: rnd.Uint32N(256),
		},
	}
}

func TestTablesFitTheScreen(t *testing.T) {
	for _, width := range []int{defaultWidth, 100, 132, 300} {
		for seed := range uint64(200) {
			rnd := rand.New(rand.NewPCG(seed, uint64(width)))
			rows := make([]row, 1+rnd.IntN(5))
			for i := range rows {
				rows[i] = awkward(rnd)
			}
			s := screen{width: width}
			for name, table := range map[string]*table{
				"flows":  newTable(flowColumns(rows, testNow()), rows, width, s),
				"follow": newTable(followColumns(time.UTC), nil, width, s),
				"events": newTable(eventColumns(time.UTC), nil, width, s),
			} {
				var out strings.Builder
				require.NoError(t, table.writeHeader(&out))
				for _, r := range rows {
					require.NoError(t, table.writeRow(&out, r))
				}
				lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
				require.Len(t, lines, len(rows)+1, "one line a row")
				for _, line := range lines {
					require.LessOrEqual(t, utf8.RuneCountInString(line), width, "%s, seed %d: %q", name, seed, line)
					require.NotContains(t, line, "\x1b")
				}
			}
		}
	}
}

func TestTableUsesTheRoomOfAWideScreen(t *testing.T) {
	rows := []row{flowRow(cannedFlows()[0])}
	var out strings.Builder
	require.NoError(t, newTable(flowColumns(rows, testNow()), rows, 120, screen{width: 120}).writeRow(&out, rows[0]))
	assert.Equal(t, "15:06:05  out  tcp    cart-7d9c5b8f6d-x2k7p:45678  10.96.100.100:5432  1000001  1.15 GiB\n", out.String())
}

func TestTableOnATinyScreenStillShowsEveryColumn(t *testing.T) {
	rows := []row{flowRow(cannedFlows()[0])}
	var out strings.Builder
	require.NoError(t, newTable(flowColumns(rows, testNow()), rows, 10, screen{width: 10}).writeRow(&out, rows[0]))
	assert.Equal(t, "15:06:05 out tcp   c…:45678 1…0:5432 1000001 1.15 GiB\n", out.String())
}

func TestColourDoesNotMoveColumns(t *testing.T) {
	var rows []row
	for _, f := range cannedFlows() {
		rows = append(rows, flowRow(f))
	}
	draw := func(colour bool) string {
		s := screen{width: defaultWidth, colour: colour}
		table := newTable(flowColumns(rows, testNow()), rows, s.width, s)
		var out strings.Builder
		require.NoError(t, table.writeHeader(&out))
		for _, r := range rows {
			require.NoError(t, table.writeRow(&out, r))
		}
		return out.String()
	}
	coloured := draw(true)
	assert.Contains(t, coloured, styleBold+"SOURCE"+styleReset)
	assert.Contains(t, coloured, styleRed+"3"+styleReset, "what was lost is loud")
	assert.NotContains(t, coloured, styleRed+"0"+styleReset)
	plain := strings.NewReplacer(styleBold, "", styleRed, "", styleReset, "").Replace(coloured)
	assert.Equal(t, draw(false), plain)
}

func TestKindColours(t *testing.T) {
	want := map[orb8v1.EventKind]string{
		orb8v1.EventKind_EVENT_KIND_NEW: styleGreen,
		orb8v1.EventKind_EVENT_KIND_SYN: styleGreen,
		orb8v1.EventKind_EVENT_KIND_FIN: "",
		orb8v1.EventKind_EVENT_KIND_RST: styleRed,
	}
	for kind, style := range want {
		assert.Equal(t, style, kindColumn().style(row{kind: kind}), kindName(kind))
	}
}

func TestScreenOfWhatIsNoTerminal(t *testing.T) {
	pipe, w, err := os.Pipe()
	require.NoError(t, err)
	defer pipe.Close()
	defer w.Close()
	assert.Equal(t, screen{width: 80}, screenOf(w))
	assert.Equal(t, screen{width: 80}, screenOf(io.Discard))
}

func BenchmarkTable(b *testing.B) {
	for _, n := range []int{100, 100_000} {
		rnd := rand.New(rand.NewPCG(1, 2))
		rows := make([]row, n)
		for i := range rows {
			rows[i] = awkward(rnd)
			rows[i].flow.Bytes = math.MaxUint32
		}
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				require.NoError(b, writeTable(io.Discard, rows, flowColumns(rows, testNow())))
			}
		})
	}
}

func BenchmarkJSONLine(b *testing.B) {
	r := flowRow(cannedFlows()[0])
	b.ReportAllocs()
	for b.Loop() {
		require.NoError(b, writeJSONLine(io.Discard, newJSONFlow(r)))
	}
}
