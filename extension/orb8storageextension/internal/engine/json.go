package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.opentelemetry.io/collector/pdata/pcommon"
)

// maxDepth is how deep values are nested at most. Records need three.
const maxDepth = 16

// appendMap appends a map as JSON, its keys in their order. An integer has neither point nor exponent and a double has one, so that
// each is read as what it was.
func appendMap(to []byte, m pcommon.Map) []byte {
	to = append(to, '{')
	first := true
	for key, v := range m.All() {
		if !first {
			to = append(to, ',')
		}
		first = false
		to = append(appendString(to, key), ':')
		to = appendValue(to, v)
	}
	return append(to, '}')
}

func appendValue(to []byte, v pcommon.Value) []byte {
	switch v.Type() {
	case pcommon.ValueTypeInt:
		return strconv.AppendInt(to, v.Int(), 10)
	case pcommon.ValueTypeDouble:
		return appendDouble(to, v.Double())
	case pcommon.ValueTypeBool:
		return strconv.AppendBool(to, v.Bool())
	case pcommon.ValueTypeMap:
		return appendMap(to, v.Map())
	case pcommon.ValueTypeSlice:
		to = append(to, '[')
		for i, element := range v.Slice().All() {
			if i > 0 {
				to = append(to, ',')
			}
			to = appendValue(to, element)
		}
		return append(to, ']')
	case pcommon.ValueTypeEmpty:
		return append(to, "null"...)
	}
	return appendString(to, v.AsString())
}

// appendDouble writes null for what JSON has no number for.
func appendDouble(to []byte, f float64) []byte {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return append(to, "null"...)
	}
	at := len(to)
	to = strconv.AppendFloat(to, f, 'g', -1, 64)
	if !strings.ContainsAny(string(to[at:]), ".e") {
		to = append(to, ".0"...)
	}
	return to
}

func appendString(to []byte, s string) []byte {
	s = strings.ToValidUTF8(s, string(utf8.RuneError))
	plain := true
	for i := 0; plain && i < len(s); i++ {
		plain = s[i] >= ' ' && s[i] != '"' && s[i] != '\\'
	}
	if plain {
		return append(append(append(to, '"'), s...), '"')
	}
	quoted, _ := json.Marshal(s) // it cannot fail on a string
	return append(to, quoted...)
}

var errJSON = errors.New("not JSON")

// readMap reads what appendMap wrote into an empty map. An engine's answer is not to be trusted: whatever it is, this returns.
func readMap(line []byte, to pcommon.Map) error {
	r := reader{rest: line}
	r.space()
	if err := r.object(to, 0); err != nil {
		return fmt.Errorf("byte %d: %w", len(line)-len(r.rest), err)
	}
	if r.space(); len(r.rest) > 0 {
		return fmt.Errorf("byte %d: %w", len(line)-len(r.rest), errJSON)
	}
	return nil
}

type reader struct{ rest []byte }

func (r *reader) space() {
	for len(r.rest) > 0 && (r.rest[0] == ' ' || r.rest[0] == '\t' || r.rest[0] == '\n' || r.rest[0] == '\r') {
		r.rest = r.rest[1:]
	}
}

// take skips a byte if it is next.
func (r *reader) take(c byte) bool {
	r.space()
	if len(r.rest) == 0 || r.rest[0] != c {
		return false
	}
	r.rest = r.rest[1:]
	return true
}

// list reads what is between two brackets, and commas between the elements.
func (r *reader) list(open, end byte, depth int, element func() error) error {
	if depth > maxDepth {
		return fmt.Errorf("nested deeper than %d", maxDepth)
	}
	if !r.take(open) {
		return errJSON
	}
	if r.take(end) {
		return nil
	}
	for {
		if err := element(); err != nil {
			return err
		}
		if r.take(end) {
			return nil
		}
		if !r.take(',') {
			return errJSON
		}
	}
}

func (r *reader) object(to pcommon.Map, depth int) error {
	return r.list('{', '}', depth, func() error {
		key, err := r.text()
		if err != nil {
			return err
		}
		if !r.take(':') {
			return errJSON
		}
		return r.value(to.PutEmpty(key), depth)
	})
}

func (r *reader) value(to pcommon.Value, depth int) error {
	r.space()
	if len(r.rest) == 0 {
		return errJSON
	}
	switch r.rest[0] {
	case '"':
		s, err := r.text()
		to.SetStr(s)
		return err
	case '{':
		return r.object(to.SetEmptyMap(), depth+1)
	case '[':
		slice := to.SetEmptySlice()
		return r.list('[', ']', depth+1, func() error { return r.value(slice.AppendEmpty(), depth+1) })
	}
	return r.scalar(to)
}

func (r *reader) scalar(to pcommon.Value) error {
	n := 0
	for n < len(r.rest) && !strings.ContainsRune(",]} \t\r\n", rune(r.rest[n])) {
		n++
	}
	word := string(r.rest[:n])
	var err error
	switch word {
	case "null":
	case "true", "false":
		to.SetBool(word == "true")
	default:
		if strings.ContainsAny(word, ".eE") {
			var f float64
			f, err = strconv.ParseFloat(word, 64)
			to.SetDouble(f)
		} else {
			var i int64
			i, err = strconv.ParseInt(word, 10, 64)
			to.SetInt(i)
		}
	}
	if err != nil {
		return errJSON
	}
	r.rest = r.rest[n:]
	return nil
}

func (r *reader) text() (string, error) {
	r.space()
	if len(r.rest) == 0 || r.rest[0] != '"' {
		return "", errJSON
	}
	escaped := false
	for i := 1; i < len(r.rest); i++ {
		switch r.rest[i] {
		case '\\':
			escaped = true
			i++
		case '"':
			quoted := r.rest[:i+1]
			r.rest = r.rest[i+1:]
			if !escaped {
				return string(quoted[1:i]), nil
			}
			var s string
			if json.Unmarshal(quoted, &s) != nil {
				return "", errJSON
			}
			return s, nil
		}
	}
	return "", errJSON
}
