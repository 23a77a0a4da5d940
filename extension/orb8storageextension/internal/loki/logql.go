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
	if any := anyOf(q.Where); any != "" {
		s += " | " + any
	}
	return s + " | keep " + labelEvent
}

// stream returns the part of a query that Loki's index answers.
func stream(q *engine.Query) string {
	s := "{" + labelNamespace + "=" + quote(engine.Namespace) + "," + labelEvent + "=" + quote(q.Event)
	if len(q.Nodes) > 0 {
		s += "," + labelNode + "=~" + quote(alternatives(q.Nodes))
	}
	return s + "}"
}

func anyOf(any engine.Any) string {
	var choices []string
	for _, all := range any {
		var terms []string
		for i := range all {
			if t := term(&all[i]); t != "" {
				terms = append(terms, "("+t+")")
			}
		}
		if len(terms) == 0 {
			return ""
		}
		choices = append(choices, "("+strings.Join(terms, " and ")+")")
	}
	return strings.Join(choices, " or ")
}

func term(t *engine.Term) string {
	var choices []string
	for _, field := range t.Fields {
		name := label(field)
		var patterns []string
		if len(t.Equal) > 0 {
			patterns = append(patterns, alternatives(t.Equal))
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

func alternatives(values []string) string {
	quoted := make([]string, len(values))
	for i, v := range values {
		quoted[i] = regexp.QuoteMeta(v)
	}
	return strings.Join(quoted, "|")
}

func quote(s string) string { return strconv.Quote(s) }
