package loki

import (
	"regexp"
	"strconv"
	"strings"

	"github.com/orb8/orb8/extension/orb8storageextension/internal/engine"
)

// Loki's names of the stream's attributes.
const (
	labelNamespace = "service_namespace"
	labelEvent     = "service_name"
	labelNode      = "service_instance_id"
)

// logQL returns a query for lines. What is searched by is kept out of the answer: with it each line would be a stream of its own.
func logQL(q *engine.Query) string {
	s := stream(q)
	if any := q.Where.Text(term); any != "" {
		s += " | " + any
	}
	return s + " | keep " + labelEvent
}

// stream returns the part of a query that Loki's index answers.
func stream(q *engine.Query) string {
	s := "{" + labelNamespace + "=" + quote(engine.Namespace) + "," + labelEvent + "=" + quote(q.Event)
	if len(q.Nodes) > 0 {
		s += "," + labelNode + "=~" + quote(engine.Alternatives(q.Nodes))
	}
	return s + "}"
}

// term says a term in LogQL.
func term(t *engine.Term) string {
	var choices []string
	for _, field := range t.Fields {
		name := label(field)
		var patterns []string
		if len(t.Equal) > 0 {
			patterns = append(patterns, engine.Alternatives(t.Equal))
		}
		for _, beginning := range t.Begin {
			patterns = append(patterns, regexp.QuoteMeta(beginning)+".*")
		}
		if len(patterns) > 0 {
			choices = append(choices, name+"=~"+quote(strings.Join(patterns, "|")))
		}
		for _, prefix := range t.Within {
			choices = append(choices, name+"=ip("+quote(prefix.Masked().String())+")")
		}
	}
	return strings.Join(choices, " or ")
}

// label returns Loki's name of an attribute.
func label(attribute string) string { return strings.ReplaceAll(attribute, ".", "_") }

func quote(s string) string { return strconv.Quote(s) }
