package main

import (
	"encoding/csv"
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"
)

// csvWriter writes what JSON output holds as CSV (RFC 4180): a column for each key, source.pod for a key of an object. The header
// comes with the first record, or at the end where there is none.
type csvWriter struct {
	csv  *csv.Writer
	kind reflect.Type
	open bool
}

// newCSVWriter takes an example of what will be written; all of it must have that type.
func newCSVWriter(w io.Writer, example any) *csvWriter {
	c := &csvWriter{csv: csv.NewWriter(w), kind: reflect.TypeOf(example)}
	c.csv.UseCRLF = true
	return c
}

func (c *csvWriter) write(v any) error {
	if err := c.header(); err != nil {
		return err
	}
	var record []string
	csvValues(&record, reflect.ValueOf(v))
	if err := c.csv.Write(record); err != nil {
		return err
	}
	// A record of a stream must not wait for others.
	c.csv.Flush()
	return c.csv.Error()
}

func (c *csvWriter) header() error {
	if c.open {
		return nil
	}
	c.open = true
	var names []string
	csvNames(&names, "", c.kind)
	if err := c.csv.Write(names); err != nil {
		return err
	}
	c.csv.Flush()
	return c.csv.Error()
}

// csvNames adds the names of the columns that a struct has.
func csvNames(to *[]string, prefix string, t reflect.Type) {
	for field := range t.Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		kind := field.Type
		if kind.Kind() == reflect.Pointer {
			kind = kind.Elem()
		}
		switch {
		case field.Anonymous:
			csvNames(to, prefix, kind)
		case kind.Kind() == reflect.Struct:
			csvNames(to, prefix+name+".", kind)
		default:
			*to = append(*to, prefix+name)
		}
	}
}

// csvValues adds the cells of a struct, as many as csvNames has for its type.
func csvValues(to *[]string, v reflect.Value) {
	for field, value := range v.Fields() {
		_, options, _ := strings.Cut(field.Tag.Get("json"), ",")
		if value.Kind() == reflect.Pointer {
			if value.IsNil() {
				*to = append(*to, csvNothing(value.Type().Elem())...)
				continue
			}
			value = value.Elem()
		} else if options == "omitempty" && value.IsZero() {
			// JSON leaves it out: it is not known, or not there.
			*to = append(*to, "")
			continue
		}
		if value.Kind() == reflect.Struct {
			csvValues(to, value)
			continue
		}
		*to = append(*to, csvCell(value))
	}
}

// csvNothing are the empty cells of a value that is not there.
func csvNothing(t reflect.Type) []string {
	if t.Kind() != reflect.Struct {
		return []string{""}
	}
	var names []string
	csvNames(&names, "", t)
	return make([]string, len(names))
}

// csvCell is a value as text: words with blanks between them, and as JSON what has more to it.
func csvCell(v reflect.Value) string {
	switch v.Kind() {
	case reflect.String:
		return v.String()
	case reflect.Float32, reflect.Float64:
		return strconv.FormatFloat(v.Float(), 'f', -1, 64)
	case reflect.Slice:
		if words, ok := v.Interface().([]string); ok {
			return strings.Join(words, " ")
		}
		return csvJSON(v)
	case reflect.Map:
		if v.Len() == 0 {
			return ""
		}
		return csvJSON(v)
	}
	return fmt.Sprint(v.Interface())
}

func csvJSON(v reflect.Value) string {
	var text strings.Builder
	// What the CLI prints as JSON can be printed as JSON.
	_ = writeJSONLine(&text, v.Interface())
	return strings.TrimSpace(text.String())
}
