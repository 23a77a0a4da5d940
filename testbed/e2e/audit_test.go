//go:build linux

package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

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
