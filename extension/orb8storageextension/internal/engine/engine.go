// Package engine is a store whose records are in a log engine: what all engines have in common. Records go to it as OpenTelemetry
// log records, and come back as the lines that those are; what sums, joins and selects them is the embedded store's own code.
package engine

import (
	"context"
	"net/netip"
	"regexp"
	"strings"
	"time"

	"go.opentelemetry.io/collector/pdata/plog"
)

// Engine is a database of log lines. All methods may be called concurrently.
type Engine interface {
	// Name is that of the backend.
	Name() string
	// Write returns nil when the engine has taken all of the logs.
	Write(ctx context.Context, logs plog.Logs) error
	// Read calls use with each line that is selected, in any order; use keeps nothing of it. Of more than max lines it may leave out
	// the oldest; from is the instant from which on it left out none.
	Read(ctx context.Context, q Query, max int, use func(line []byte) error) (from time.Time, err error)
	// Nodes returns the nodes that have lines, whatever else must hold.
	Nodes(ctx context.Context, q Query) ([]string, error)
	// Latest calls use with the newest line of each of the query's nodes.
	Latest(ctx context.Context, q Query, use func(line []byte) error) error
}

// Query selects lines.
type Query struct {
	// Event is the name of the event, which is the stream's service.name.
	Event string
	// Nodes are those whose lines are meant, all when empty.
	Nodes []string
	// Since and Until bound [Since, Until).
	Since, Until time.Time
	// Where is what else must hold. Nothing selects all.
	Where Any
}

// Any holds when one of its conditions does; an empty one always does.
type Any []All

// All holds when each of its terms does.
type All []Term

// Term holds when one of the fields has one of the values.
type Term struct {
	Fields []string
	// Equal, Begin and Within are the values, one of these alone: the field's, the beginning of it, or a prefix of the address that
	// it is.
	Equal, Begin []string
	Within       []netip.Prefix
}

// Text returns the condition in a language that has "and", "or" and parentheses, in which term says a term, or nothing where the
// language cannot. It returns nothing for what always holds.
func (any Any) Text(term func(*Term) string) string {
	var choices []string
	for _, all := range any {
		var terms []string
		for i := range all {
			if text := term(&all[i]); text != "" {
				terms = append(terms, "("+text+")")
			}
		}
		if len(terms) == 0 {
			return ""
		}
		choices = append(choices, "("+strings.Join(terms, " and ")+")")
	}
	return strings.Join(choices, " or ")
}

// Alternatives returns a regular expression that matches the values and no others.
func Alternatives(values []string) string {
	quoted := make([]string, len(values))
	for i, v := range values {
		quoted[i] = regexp.QuoteMeta(v)
	}
	return strings.Join(quoted, "|")
}

// Attributes of a stream. Both engines index them: Loki by its defaults, VictoriaLogs because the request says so.
const (
	AttrNamespace = "service.namespace"
	AttrEvent     = "service.name"
	AttrNode      = "service.instance.id"
	// Namespace is the value of AttrNamespace.
	Namespace = "orb8"
)

// Attributes of log records that are there to be searched for. Those of the ends of a flow are flow's, after the prefix of the end.
const (
	// AttrID is the hash of what the agent wrote: two records with the same are one that was sent again.
	AttrID = "orb8.record.id"
	// AttrTuple is what flow.AttrConnectionID is where no handshake was seen.
	AttrTuple = "orb8.flow.tuple"
	// AttrWorkload is a workload of any kind.
	AttrWorkload = "orb8.workload.name"
	// AttrLossy is set on a status that tells of a loss.
	AttrLossy = "orb8.lossy"
)
