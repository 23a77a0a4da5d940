package main

import (
	"cmp"
	"io"
	"os"
	"strings"
	"unicode/utf8"
)

const (
	defaultWidth = 80
	// Below this a column says nothing any more; on a narrower terminal lines wrap.
	minFlexible = 8
	// minSide is what the longer side of a pair keeps.
	minSide = 14

	// arrow separates the sides of a pair of endpoints.
	arrow = " -> "

	styleRed    = "\x1b[31m"
	styleGreen  = "\x1b[32m"
	styleYellow = "\x1b[33m"
	styleBold   = "\x1b[1m"
	styleReset  = "\x1b[0m"
)

// screen is what the output is shown on.
type screen struct {
	width int
	// height is 0 where the output is no terminal.
	height int
	colour bool
}

// screenOf measures the terminal that w is. Anything else is 80 columns wide and has no colour.
func screenOf(w io.Writer) screen {
	if buffer, ok := w.(*screenBuffer); ok {
		return buffer.of
	}
	s := screen{width: defaultWidth}
	if width, height := terminalSize(w); height > 0 {
		s = screen{width: width, height: height, colour: os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"}
	}
	return s
}

// paint puts text into a style, where there is colour.
func (s screen) paint(style, text string) string {
	if !s.colour || style == "" || text == "" {
		return text
	}
	return style + text + styleReset
}

// column is one column of a table of rows.
type column struct {
	title string
	text  func(row) string
	// style, when set, says how a cell stands out.
	style func(row) string
	// right puts numbers under each other.
	right bool
	// flexible columns give way when a line is too long.
	flexible bool
	// endless text comes last in a line, is never cut, and makes no room for itself: it may run over the end.
	endless bool
	// room is the width in a stream, whose rows are not known yet; the title's, if that is larger.
	room int
}

// table is a table whose columns have their widths.
type table struct {
	columns []column
	widths  []int
	gap     int
	screen  screen
}

// newTable fits columns to rows or, where there are none, to those that a stream will bring; and to a width of limit,
// unless that is 0.
func newTable(columns []column, rows []row, limit int, s screen) *table {
	t := &table{columns: columns, widths: make([]int, len(columns)), gap: 2, screen: s}
	for i, c := range columns {
		t.widths[i] = utf8.RuneCountInString(c.title)
		if len(rows) == 0 {
			t.widths[i] = max(t.widths[i], c.room)
		}
		for _, r := range rows {
			if c.endless {
				break
			}
			t.widths[i] = max(t.widths[i], utf8.RuneCountInString(c.text(r)))
		}
	}
	if limit > 0 {
		t.shrink(limit)
	}
	return t
}

// shrink takes from the flexible columns, the widest first, what a line is longer than limit.
func (t *table) shrink(limit int) {
	total := t.gap * (len(t.columns) - 1)
	for _, width := range t.widths {
		total += width
	}
	if total <= limit {
		return
	}
	// Narrower gaps cost less than names cut short.
	total -= len(t.columns) - 1
	t.gap = 1
	for ; total > limit; total-- {
		widest := -1
		for i, c := range t.columns {
			if c.flexible && t.widths[i] > minFlexible && (widest < 0 || t.widths[i] > t.widths[widest]) {
				widest = i
			}
		}
		if widest < 0 {
			return
		}
		t.widths[widest]--
	}
}

func (t *table) writeHeader(w io.Writer) error {
	return t.writeLine(w, func(c column) (string, string) { return c.title, styleBold })
}

func (t *table) writeRow(w io.Writer, r row) error {
	return t.writeLine(w, func(c column) (text, style string) {
		if c.style != nil {
			style = c.style(r)
		}
		// A blank would shift what awk and cut take for columns.
		return cmp.Or(printable(c.text(r)), "-"), style
	})
}

// writeLine writes one line in a single Write, so that lines of a stream stay whole.
func (t *table) writeLine(w io.Writer, cell func(column) (text, style string)) error {
	var line strings.Builder
	for i, c := range t.columns {
		text, style := cell(c)
		if text == "" && i == len(t.columns)-1 {
			break // a last column without a title
		}
		if c.flexible {
			text = shorten(text, t.widths[i])
		}
		pad := strings.Repeat(" ", max(0, t.widths[i]-utf8.RuneCountInString(text)))
		text = t.screen.paint(style, text)
		if i > 0 {
			line.WriteString(strings.Repeat(" ", t.gap))
		}
		switch {
		case c.right:
			line.WriteString(pad + text)
		case i < len(t.columns)-1:
			line.WriteString(text + pad)
		default:
			line.WriteString(text)
		}
	}
	line.WriteByte('\n')
	_, err := io.WriteString(w, line.String())
	return err
}

// shorten cuts letters out of the middle of s, as names differ at their ends. A port at the end stays whole, and so
// does the shorter side of a pair ("a -> b", "a→b") where the other one can do with what is left.
func shorten(s string, width int) string {
	runes := []rune(s)
	if len(runes) <= width {
		return s
	}
	sign := hop
	if strings.Contains(s, arrow) {
		sign = arrow
	}
	signWidth := utf8.RuneCountInString(sign)
	if from, to, ok := strings.Cut(s, sign); ok && width >= signWidth+2 {
		space := width - signWidth
		least := min(minSide, space/2)
		fromLen, toLen := utf8.RuneCountInString(from), utf8.RuneCountInString(to)
		fromWidth := space / 2
		switch {
		case fromLen <= toLen && fromLen <= space-least:
			fromWidth = fromLen
		case toLen < fromLen && toLen <= space-least:
			fromWidth = space - toLen
		}
		return shorten(from, fromWidth) + sign + shorten(to, space-fromWidth)
	}
	kept := max(width-1, 0)
	port := utf8.RuneCountInString(s[max(strings.LastIndexByte(s, ':'), 0):])
	if port > len(":65535") || port >= kept {
		port = 0
	}
	head := (kept - port + 1) / 2
	return string(runes[:head]) + "…" + string(runes[len(runes)-(kept-head):])
}
