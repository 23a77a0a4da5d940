//go:build linux

package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// usage is what a process takes of the machine, since it started.
type usage struct {
	at        time.Time
	rss, peak uint64 // bytes
	cpu       time.Duration
}

// usage reads it from proc(5).
func (p *process) usage(t *testing.T) usage {
	t.Helper()
	u := usage{at: time.Now()}
	dir := fmt.Sprintf("/proc/%d/", p.cmd.Process.Pid)
	status, err := os.ReadFile(dir + "status")
	require.NoError(t, err)
	for line := range strings.Lines(string(status)) {
		var kib uint64
		if n, _ := fmt.Sscanf(line, "VmRSS: %d kB", &kib); n == 1 {
			u.rss = kib << 10
		}
		if n, _ := fmt.Sscanf(line, "VmHWM: %d kB", &kib); n == 1 {
			u.peak = kib << 10
		}
	}
	stat, err := os.ReadFile(dir + "stat")
	require.NoError(t, err)
	_, after, _ := strings.Cut(string(stat), ") ")
	const userHZ = 100
	for _, field := range strings.Fields(after)[11:13] { // utime and stime
		ticks, err := strconv.Atoi(field)
		require.NoError(t, err)
		u.cpu += time.Duration(ticks) * time.Second / userHZ
	}
	return u
}

// String has the CPU time since the start.
func (u usage) String() string {
	return fmt.Sprintf("RSS %.0f MB, at most %.0f MB, CPU %s", float64(u.rss)/1e6, float64(u.peak)/1e6, u.cpu)
}

// since returns which share of one processor was used between two readings.
func (u usage) since(earlier usage) float64 {
	return float64(u.cpu-earlier.cpu) / float64(u.at.Sub(earlier.at))
}

// request is one that the API server was asked, from its audit log.
type request struct {
	at              time.Time
	user, verb, url string
	// what is the resource, or the path of what is none.
	what, selector string
	answer         int // HTTP status
}

func (r request) String() string {
	return fmt.Sprintf("%s %s %s (%d)", r.verb, r.what, r.selector, r.answer)
}

// readAudit returns what the API server was asked so far, except by watches that still wait for their first answer.
func readAudit(t *testing.T, path string) (all []request) {
	t.Helper()
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	seen := map[string]bool{}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var event struct {
			AuditID, Verb, RequestURI string
			User                      struct{ Username string }
			ObjectRef                 struct{ Resource string }
			ResponseStatus            struct{ Code int }
			RequestReceivedTimestamp  time.Time
		}
		require.NoError(t, json.Unmarshal(lines.Bytes(), &event))
		if seen[event.AuditID] {
			continue // a watch is written when it begins and when it ends
		}
		seen[event.AuditID] = true
		target, err := url.Parse(event.RequestURI)
		require.NoError(t, err)
		r := request{
			at: event.RequestReceivedTimestamp, user: event.User.Username, verb: event.Verb, url: event.RequestURI,
			what: event.ObjectRef.Resource, selector: target.Query().Get("fieldSelector"), answer: event.ResponseStatus.Code,
		}
		if r.what == "" {
			r.what = target.Path
		}
		all = append(all, r)
	}
	require.NoError(t, lines.Err())
	return all
}
