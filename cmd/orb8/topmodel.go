package main

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// topModel is the state of top on a terminal: messages come in, a picture comes out.
type topModel struct {
	app    *app
	ctx    context.Context
	every  time.Duration
	screen screen

	groupings []grouping
	grouping  int
	// chosen is true once the user has said what to group by.
	chosen  bool
	sort    string
	window  time.Duration
	filters *filters

	answer topAnswer
	// asking is true while a question is under way.
	asking bool
	paused bool
	help   bool
	// offset is how many lines are above the first that is shown.
	offset int
	// typing is true while the filter is being edited; typed is what is there then, and wrong what is wrong with it.
	typing bool
	typed  string
	wrong  string
	// filterText is what the filters were read from.
	filterText string
}

type (
	tickMsg   struct{}
	answerMsg topAnswer
)

func newTopModel(q topQuestion, by []string, every time.Duration) *topModel {
	m := &topModel{groupings: groupings(), sort: q.sort, window: q.window, filters: q.filters, every: every}
	if len(by) > 0 {
		m.groupings = append([]grouping{{strings.Join(by, ", "), by}}, m.groupings...)
		m.chosen = true
	}
	return m
}

func (m *topModel) question() topQuestion {
	return topQuestion{by: m.groupings[m.grouping].by, sort: m.sort, window: m.window, filters: m.filters}
}

// unnamed moves on to another grouping where an answer knows no pods, and the user did not ask for them. It is true when it did.
func (m *topModel) unnamed(answer *topAnswer) bool {
	if m.chosen || len(answer.groups) == 0 {
		return false
	}
	m.chosen = true
	for _, group := range answer.groups {
		if slices.ContainsFunc(group.GetBy(), func(name string) bool { return name != "" }) {
			return false
		}
	}
	m.grouping = slices.IndexFunc(m.groupings, func(g grouping) bool { return g.name == withoutPods })
	return true
}

func (m *topModel) Init() tea.Cmd { return tea.Batch(m.ask(), m.tick()) }

// ask asks what is to be shown, unless that is under way.
func (m *topModel) ask() tea.Cmd {
	if m.asking {
		return nil
	}
	m.asking = true
	question := m.question()
	return func() tea.Msg { return answerMsg(m.app.askTop(m.ctx, question)) }
}

func (m *topModel) tick() tea.Cmd {
	return tea.Tick(m.every, func(time.Time) tea.Msg { return tickMsg{} })
}

func (m *topModel) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.screen.width, m.screen.height = msg.Width, msg.Height
	case tickMsg:
		if m.paused {
			return m, m.tick()
		}
		return m, tea.Batch(m.ask(), m.tick())
	case answerMsg:
		m.asking = false
		answer := topAnswer(msg)
		// What was asked may not be what is wanted by now.
		if m.unnamed(&answer) || !answer.question.same(m.question()) {
			return m, m.ask()
		}
		if answer.err != nil {
			// The rates that were there are better than none.
			m.answer.err = answer.err
		} else {
			m.answer = answer
		}
	case tea.PasteMsg:
		if m.typing {
			m.typed += printable(msg.Content)
		}
	case tea.KeyPressMsg:
		if m.typing {
			return m, m.typeKey(msg)
		}
		return m, m.key(msg.Keystroke())
	}
	return m, nil
}

// same is true of questions with the same answer.
func (q topQuestion) same(other topQuestion) bool {
	return slices.Equal(q.by, other.by) && q.sort == other.sort && q.window == other.window && q.filters == other.filters
}

// key does what a key is for.
func (m *topModel) key(key string) tea.Cmd {
	page := max(1, m.lines()-1)
	switch key {
	case "q", "ctrl+c":
		return tea.Quit
	case "esc":
		if !m.help {
			return tea.Quit
		}
		m.help = false
	case "?", "shift+?", "h", "f1":
		m.help = !m.help
	case "g", "tab":
		return m.group(1)
	case "shift+g", "shift+tab":
		return m.group(-1)
	case "s":
		m.sort = m.nextSort(1)
		return m.changed()
	case "shift+s":
		m.sort = m.nextSort(-1)
		return m.changed()
	case "+", "shift++", "=":
		m.window = min(2*m.window, longestWindow)
		return m.changed()
	case "-":
		m.window = max(m.window/2, defaultInterval)
		return m.changed()
	case "/", "f":
		m.typing, m.typed, m.wrong = true, m.filterText, ""
	case "p", "space":
		m.paused = !m.paused
		if !m.paused {
			return m.ask()
		}
	case "down", "j":
		m.scroll(1)
	case "up", "k":
		m.scroll(-1)
	case "pgdown", "ctrl+f":
		m.scroll(page)
	case "pgup", "ctrl+b":
		m.scroll(-page)
	case "home":
		m.offset = 0
	case "end":
		m.scroll(len(m.answer.groups))
	}
	return nil
}

func (m *topModel) group(by int) tea.Cmd {
	m.grouping = (m.grouping + by + len(m.groupings)) % len(m.groupings)
	m.chosen = true
	return m.changed()
}

func (m *topModel) nextSort(by int) string {
	all := topMeasures()
	return all[(slices.Index(all, m.sort)+by+len(all))%len(all)]
}

// changed asks anew. Where that has to wait for an answer, its arrival asks.
func (m *topModel) changed() tea.Cmd {
	m.offset = 0
	return m.ask()
}

func (m *topModel) scroll(by int) {
	m.offset = max(0, min(m.offset+by, len(m.answer.groups)-m.lines()))
}

// typeKey edits the filter.
func (m *topModel) typeKey(key tea.KeyPressMsg) tea.Cmd {
	switch key.Keystroke() {
	case "ctrl+c":
		return tea.Quit
	case "esc":
		m.typing = false
	case "enter":
		filters, err := parseFilters(m.typed, m.app)
		if err != nil {
			m.wrong = err.Error()
			return nil
		}
		m.typing, m.filters, m.filterText = false, filters, strings.TrimSpace(m.typed)
		return m.changed()
	case "backspace":
		letters := []rune(m.typed)
		m.typed = string(letters[:max(0, len(letters)-1)])
	case "ctrl+u":
		m.typed = ""
	case "ctrl+w":
		words := strings.TrimRight(m.typed, " ")
		m.typed = words[:strings.LastIndexByte(words, ' ')+1]
	default:
		m.typed += printable(key.Key().Text)
	}
	m.wrong = ""
	return nil
}

// parseFilters reads the filter flags of orb8 flows as a user types them.
func parseFilters(text string, a *app) (*filters, error) {
	words, err := splitWords(text)
	if err != nil {
		return nil, err
	}
	cmd := &cobra.Command{SilenceErrors: true, SilenceUsage: true}
	cmd.SetOut(io.Discard)
	f := addFlowFilters(cmd, a)
	if err := cmd.ParseFlags(words); errors.Is(err, pflag.ErrHelp) {
		return nil, errNoFilter
	} else if err != nil {
		return nil, err
	}
	if len(cmd.Flags().Args()) > 0 {
		return nil, errNoFilter
	}
	return f, f.check()
}

var errNoFilter = errors.New("use the filters of orb8 flows: --port 443 --not --pod web")

// splitWords splits at blanks, except between quotes.
func splitWords(text string) ([]string, error) {
	var words []string
	var word strings.Builder
	quote, inWord := rune(0), false
	for _, r := range text {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote == 0 && (r == '\'' || r == '"'):
			quote, inWord = r, true
		case quote == 0 && r == ' ':
			if inWord {
				words = append(words, word.String())
				word.Reset()
				inWord = false
			}
		default:
			word.WriteRune(r)
			inWord = true
		}
	}
	if quote != 0 {
		return nil, errors.New("a quote has no end")
	}
	if inWord {
		words = append(words, word.String())
	}
	return words, nil
}
