// Command orb8 asks an orb8 collector who talks to whom on its nodes, and which system calls are made there.
//
// Data goes to stdout and everything said about it to stderr. The exit code is 0 on success, 1 when the collector or
// the host fails the request, and 2 when the command line is wrong.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

const (
	exitFailed = 1
	exitUsage  = 2
)

// version is set by the linker (-X main.version=v1.2.3); without it the module's own build information answers.
var version string

func main() {
	// A terminal that goes away is a reason to stop, too: what was started for the command must end with it.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	// Once the first signal is handled the second one kills, should a command hang while it stops.
	context.AfterFunc(ctx, stop)
	program, args := calledAs(os.Args)
	a := &app{target: targetFromEnvironment(), program: program, now: time.Now}
	os.Exit(run(ctx, a, args, os.Stdout, os.Stderr))
}

// run executes one command line and returns its exit code.
func run(ctx context.Context, a *app, args []string, stdout, stderr io.Writer) int {
	a.notices = stderr
	defer a.close()
	root := newRootCommand(a)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	notice(stderr, "%v", err)
	if _, ok := errors.AsType[usageError](err); ok {
		return exitUsage
	}
	return exitFailed
}

// notice tells the user something that is not data, on a line of its own.
func notice(w io.Writer, format string, args ...any) {
	fmt.Fprintln(w, "orb8: "+printable(fmt.Sprintf(format, args...)))
}

// usageError is a mistake in the command line.
type usageError struct{ error }

func usagef(format string, args ...any) error {
	return usageError{fmt.Errorf(format, args...)}
}
