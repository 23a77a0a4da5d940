package main

import (
	"bytes"
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

const (
	outputTable = "table"
	outputWide  = "wide"
	outputJSON  = "json"
	outputJSONL = "jsonl"
	outputCSV   = "csv"
)

func rowOutputs() []string {
	return []string{outputTable, outputWide, outputJSON, outputJSONL, outputCSV}
}

// addOutputFlag adds -o with the given formats, the first of which is the default.
func addOutputFlag(cmd *cobra.Command, output *string, formats []string) {
	cmd.Flags().FuncP("output", "o", fmt.Sprintf("`FORMAT`: %s (default %s)", anyOf(formats), formats[0]), oneOf(output, formats))
	complete(cmd, "output", formats)
}

// rowsWriter writes the rows of an answer, page by page. Nothing is on the screen before end: a table is as wide as its widest row.
type rowsWriter interface {
	add([]row) error
	end() error
}

// layout is how the rows of a command look.
type layout struct {
	// columns returns those of a table, wide or not, for these rows.
	columns func(rows []row, wide bool) []column
	// example is what newJSON makes of a row; it tells the columns of CSV.
	example any
}

// newRowsWriter returns the writer of a format. s is the screen that tables are fitted to.
func newRowsWriter(w io.Writer, output string, l layout, s screen) rowsWriter {
	switch output {
	case outputJSON:
		return &jsonArray{w: w}
	case outputJSONL:
		return lineWriter(func(r row) error { return writeJSONLine(w, newJSON(r)) })
	case outputCSV:
		return csvRows{newCSVWriter(w, l.example)}
	}
	return &tableWriter{w: w, wide: output == outputWide, layout: l, screen: s}
}

// lineWriter writes each row for itself.
type lineWriter func(row) error

func (l lineWriter) add(rows []row) error {
	for _, r := range rows {
		if err := l(r); err != nil {
			return err
		}
	}
	return nil
}

func (lineWriter) end() error { return nil }

type csvRows struct{ *csvWriter }

func (c csvRows) add(rows []row) error {
	return lineWriter(func(r row) error { return c.write(newJSON(r)) }).add(rows)
}

func (c csvRows) end() error { return c.header() }

// jsonArray writes one array with one object a line, so that grep and diff work on it too.
type jsonArray struct {
	w    io.Writer
	rows int
}

func (j *jsonArray) add(rows []row) error {
	var line bytes.Buffer
	for _, r := range rows {
		line.Reset()
		if j.rows == 0 {
			line.WriteString("[\n")
		} else {
			line.WriteString(",\n")
		}
		j.rows++
		if err := writeJSONLine(&line, newJSON(r)); err != nil {
			return err
		}
		// The end of the line waits for the comma, if there is one.
		line.Truncate(line.Len() - 1)
		if _, err := j.w.Write(line.Bytes()); err != nil {
			return err
		}
	}
	return nil
}

func (j *jsonArray) end() error {
	end := "\n]\n"
	if j.rows == 0 {
		end = "[]\n"
	}
	_, err := io.WriteString(j.w, end)
	return err
}

// tableWriter keeps the rows until all are there. Without rows it writes nothing.
type tableWriter struct {
	w      io.Writer
	wide   bool
	layout layout
	screen screen
	rows   []row
}

func (t *tableWriter) add(rows []row) error {
	t.rows = append(t.rows, rows...)
	return nil
}

func (t *tableWriter) end() error {
	if len(t.rows) == 0 {
		return nil
	}
	limit := t.screen.width
	if t.wide {
		limit = 0
	}
	table := newTable(t.layout.columns(t.rows, t.wide), t.rows, limit, t.screen)
	if err := table.writeHeader(t.w); err != nil {
		return err
	}
	return lineWriter(func(r row) error { return table.writeRow(t.w, r) }).add(t.rows)
}
