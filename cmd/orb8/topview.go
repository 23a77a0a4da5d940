package main

import (
	"fmt"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
)

// frame is how many lines of the screen are not the table's rows: two above it and a blank one, its header, and a blank one and the keys
// below it.
const frame = 6

// lines is how many rows of the table are shown.
func (m *topModel) lines() int { return max(1, m.screen.height-frame) }

func (m *topModel) View() tea.View {
	lines := m.picture()
	// What does not fit is left out at the end: the terminal would scroll.
	if len(lines) > m.screen.height {
		lines = lines[:max(0, m.screen.height)]
	}
	v := tea.NewView(strings.Join(lines, "\n"))
	v.AltScreen = true
	return v
}

func (m *topModel) picture() []string {
	if m.screen.width == 0 {
		return nil // the terminal has not said yet how large it is
	}
	lines := []string{m.summary(), m.state(), ""}
	switch {
	case m.help:
		for line := range strings.SplitSeq(topHelp, "\n") {
			lines = append(lines, cut(line, m.screen.width))
		}
	case m.answer.until.IsZero():
		lines = append(lines, "asking "+m.collector()+" ...")
	case len(m.answer.groups) == 0:
		lines = append(lines, "no traffic matches")
	default:
		lines = append(lines, m.table()...)
	}
	for len(lines) < m.screen.height-1 {
		lines = append(lines, "")
	}
	return append(lines[:max(0, min(len(lines), m.screen.height-1))], m.lastLine())
}

// collector is the one that is asked.
func (m *topModel) collector() string {
	m.app.connecting.Lock()
	defer m.app.connecting.Unlock()
	if m.app.connection == nil {
		return "the collector"
	}
	return m.app.connection.name
}

// summary is the first line: which time it is of, and the rates of all that matches.
func (m *topModel) summary() string {
	text := "orb8 top  " + m.collector()
	if t := &m.answer; !t.until.IsZero() {
		text = fmt.Sprintf("%s  %v to %s", text, t.window, t.until.In(m.app.now().Location()).Format(clockLayout))
		if len(t.total) > 0 {
			text += "  all " + t.rate("bytes", t.total[0]) + "/s, " + t.rate("packets", t.total[1]) + " packets/s"
		}
	}
	return m.screen.paint(styleBold, cut(text, m.screen.width))
}

// state is the second line: how it is grouped, sorted and filtered, or what is wrong.
func (m *topModel) state() string {
	if m.answer.err != nil {
		return m.screen.paint(styleRed, cut(printable(m.answer.err.Error()), m.screen.width))
	}
	parts := []string{"by " + m.groupings[m.grouping].name, "sorted by " + m.sort}
	switch {
	case m.filterText != "":
		parts = append(parts, "only "+m.filterText)
	case len(m.filters.deny) > 0 || len(m.filters.allow.flows()) > 0:
		parts = append(parts, "filtered by the command line")
	}
	if m.paused {
		parts = append(parts, "PAUSED")
	}
	warnings := m.answer.warnings()
	line := cut(printable(strings.Join(append(parts, warnings...), "; ")), m.screen.width)
	if len(warnings) > 0 {
		return m.screen.paint(styleYellow, line)
	}
	return line
}

func (m *topModel) table() []string {
	rows := m.answer.rows()
	// The columns fit all rows, so that they stay where they are while one scrolls.
	t := newTable(m.answer.columns(), rows, m.screen.width, m.screen)
	var text strings.Builder
	// A string takes all that is written.
	_ = t.writeHeader(&text)
	first := max(0, min(m.offset, len(rows)-1))
	for _, r := range rows[first:min(len(rows), first+m.lines())] {
		_ = t.writeRow(&text, r)
	}
	return strings.Split(strings.TrimSuffix(text.String(), "\n"), "\n")
}

// lastLine has the keys, or the filter that is being typed.
func (m *topModel) lastLine() string {
	if m.typing {
		if m.wrong != "" {
			return m.screen.paint(styleRed, cut(printable(m.wrong), m.screen.width))
		}
		// Its end is where one types.
		text := []rune("filter: " + m.typed + "█")
		return string(text[max(0, len(text)-m.screen.width):])
	}
	keys := "q quit  g group  s sort  / filter  space pause  +/- window  ? help"
	if more := len(m.answer.groups) - m.offset - m.lines(); more > 0 && !m.help {
		keys = "↓ " + grouped(uint64(more)) + " more  " + keys
	}
	return cut(keys, m.screen.width)
}

// cut leaves out the end of what does not fit.
func cut(text string, width int) string {
	if letters := []rune(text); len(letters) > width {
		return string(letters[:max(0, width-1)]) + "…"
	}
	return text
}

var topHelp = strings.TrimPrefix(fmt.Sprintf(`
g, tab      next grouping: pods, sending pods, workloads, namespaces, Services,
            nodes, processes, addresses, DNS names; G, shift+tab: the one before
s           sort by the next column; S: by the one before
/, f        filter, with the flags of flows: --to svc/shop/cart --not --port 53
            enter takes it, esc leaves it, ctrl+u empties it
+, -        rates over a longer or a shorter window (from %v to %v)
space, p    pause
up, down    scroll, also j, k, page up, page down, home, end
?, h        this help
q, esc      quit

Rates are means over the window, which ends where the last records of all
nodes have come in. ERR/S are connections reset, refused or timed out.`, time.Duration(defaultInterval), time.Duration(longestWindow)), "\n")
