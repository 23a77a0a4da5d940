package victorialogs

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/orb8/orb8/extension/orb8storageextension/internal/engine"
)

// timeFormat keeps nanoseconds.
const timeFormat = "2006-01-02T15:04:05.000000000Z"

// logsQL returns the filter that a query is.
func logsQL(q *engine.Query) string {
	var b strings.Builder
	b.WriteString("{" + quote(engine.AttrNamespace) + "=" + quote(engine.Namespace) + "," + quote(engine.AttrEvent) + "=" + quote(q.Event))
	if len(q.Nodes) > 0 {
		b.WriteString("," + quote(engine.AttrNode) + "=~" + quote(engine.Alternatives(q.Nodes)))
	}
	b.WriteString("} _time:[" + q.Since.UTC().Format(timeFormat) + "," + q.Until.UTC().Format(timeFormat) + ")")
	if any := q.Where.Text(term); any != "" {
		b.WriteString(" (" + any + ")")
	}
	return b.String()
}

// term returns nothing where VictoriaLogs cannot tell.
func term(t *engine.Term) string {
	var any []string
	for _, field := range t.Fields {
		name := quote(field) + ":"
		if len(t.Equal) > 0 {
			any = append(any, name+"in("+strings.Join(quoteAll(t.Equal), ",")+")")
		}
		for _, beginning := range t.Begin {
			any = append(any, name+"="+quote(beginning)+"*")
		}
		for _, prefix := range t.Within {
			switch {
			case prefix.IsSingleIP():
				any = append(any, name+"="+quote(prefix.Addr().String()))
			case prefix.Addr().Is4():
				any = append(any, name+"ipv4_range("+quote(prefix.Masked().String())+")")
			default:
				any = append(any, name+"=~"+quote(within6(prefix)))
			}
		}
	}
	return strings.Join(any, " or ")
}

// within6 is a regular expression that the addresses of a prefix match, and others: there is no filter of IPv6 ranges.
func within6(prefix netip.Prefix) string {
	if first := prefix.Addr().As16(); prefix.Bits() >= 16 && first[0] != 0 {
		return "^" + strconv.FormatUint(uint64(first[0])<<8|uint64(first[1]), 16) + ":"
	}
	return ":"
}

func quoteAll(values []string) []string {
	quoted := make([]string, len(values))
	for i, v := range values {
		quoted[i] = quote(v)
	}
	return quoted
}

func quote(s string) string { return strconv.Quote(s) }
