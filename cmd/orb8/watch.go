package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

const (
	defaultEvery = 2 * time.Second
	leastEvery   = 200 * time.Millisecond

	// A screen of its own, on which long lines are cut and not wrapped, and the way back.
	enterScreen = "\x1b[?1049h\x1b[?7l"
	leaveScreen = "\x1b[?7h\x1b[?1049l"
	// clearLine and clearBelow clear what an older, longer picture has left.
	goHome     = "\x1b[H"
	clearLine  = "\x1b[K"
	clearBelow = "\x1b[J"
)

func newWatchCommand(a *app) *cobra.Command {
	every := defaultEvery
	cmd := &cobra.Command{
		Use:   "watch COMMAND [flags]",
		Short: "Ask one question again and again",
		Long: `Runs another command every two seconds, as watch(1) does, and shows its answer in place of the one
before, cut to the terminal; where the output is no terminal, one below the other. A duration in --since
goes back from each time anew. One connection serves all, and an answer that fails is shown and tried
again. Flags before COMMAND are those of watch, flags behind it those of COMMAND. Ctrl-C ends it.`,
		Example: `  # The newest flows of a pod
  orb8 watch flows --pod shop/cart-0 --limit 20

  # Who talked most in the last minute, every ten seconds
  orb8 watch --every 10s aggregate --by source.pod --since 1m

  # Is anything lost?
  orb8 watch status`,
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return watchable(), cobra.ShellCompDirectiveNoFileComp
		},
	}
	cmd.Flags().SetInterspersed(false)
	cmd.Flags().FuncP("every", "n", "`DURATION` from one question to the next (default 2s)", func(s string) (err error) {
		every, err = parseEvery(s)
		return err
	})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 || !slices.Contains(watchable(), args[0]) {
			return usagef("what is to be watched? use one of %s", strings.Join(watchable(), ", "))
		}
		return a.watch(cmd, args, every)
	}
	return cmd
}

// watchable are the commands that answer and end.
func watchable() []string {
	return []string{"flows", "dns", "syscalls", "anomalies", "aggregate", "gpu", "status", "top"}
}

func parseEvery(s string) (time.Duration, error) {
	every, err := parseAge(s)
	if err != nil || every < leastEvery {
		return 0, fmt.Errorf("use a duration of %v or more, such as 2s or 1m", leastEvery)
	}
	return every, nil
}

// watch runs a command line until the user interrupts it. A command line that is wrong ends it at once.
func (a *app) watch(cmd *cobra.Command, args []string, every time.Duration) error {
	w := cmd.OutOrStdout()
	a.watched = true
	defer func() { a.watched = false }()
	if screenOf(w).height > 0 {
		fmt.Fprint(w, enterScreen)
		defer fmt.Fprint(w, leaveScreen)
	}
	next := time.NewTicker(every)
	defer next.Stop()
	for {
		// The terminal may have another size now.
		s := screenOf(w)
		var data, said bytes.Buffer
		err := a.runAgain(cmd.Context(), args, &screenBuffer{Buffer: &data, of: s}, &said)
		if cmd.Context().Err() != nil {
			return nil
		}
		if _, wrong := errors.AsType[usageError](err); wrong {
			return err
		}
		if err != nil {
			notice(&said, "%v", err)
		}
		title := fmt.Sprintf("every %v: %s    %s", every, strings.Join(args, " "), a.now().Format(time.DateTime))
		if err := s.show(w, title, said.String()+data.String()); err != nil {
			return err
		}
		select {
		case <-next.C:
		case <-cmd.Context().Done():
			return nil
		}
	}
}

// runAgain runs a command line with the connection that is there.
func (a *app) runAgain(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	root := newRootCommand(a)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	return root.ExecuteContext(ctx)
}

// screenBuffer is output that is not on a screen yet, but will be.
type screenBuffer struct {
	*bytes.Buffer
	of screen
}

// show writes a picture over the one before. What is no terminal gets one below the other.
func (s screen) show(w io.Writer, title, text string) error {
	var picture strings.Builder
	title = printable(title)
	if s.height == 0 {
		fmt.Fprintf(&picture, "# %s\n%s\n", title, text)
		_, err := io.WriteString(w, picture.String())
		return err
	}
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if rows := s.height - 2; len(lines) > rows {
		lines = lines[:max(0, rows)]
	}
	picture.WriteString(goHome + s.paint(styleBold, shorten(title, s.width)) + clearLine + "\n" + clearLine)
	for _, line := range lines {
		picture.WriteString("\n" + line + clearLine)
	}
	picture.WriteString(clearBelow)
	_, err := io.WriteString(w, picture.String())
	return err
}

// terminalSize returns the size of the terminal that w is, and zeros where it is none.
func terminalSize(w io.Writer) (width, height int) {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return 0, 0
	}
	width, height, err := term.GetSize(int(f.Fd()))
	if err != nil || width <= 0 {
		return defaultWidth, 24
	}
	return width, height
}
