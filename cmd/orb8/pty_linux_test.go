package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// terminal is a terminal with this test at its keyboard.
type terminal struct {
	// tty is what a program has for its input and output.
	tty      *os.File
	keyboard *os.File

	mu   sync.Mutex
	seen bytes.Buffer
	// wrote is told when there is more to see.
	wrote chan struct{}
}

func newTerminal(t *testing.T, width, height uint16) *terminal {
	t.Helper()
	ptmx, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	require.NoError(t, unix.IoctlSetPointerInt(int(ptmx.Fd()), unix.TIOCSPTLCK, 0))
	number, err := unix.IoctlGetInt(int(ptmx.Fd()), unix.TIOCGPTN)
	require.NoError(t, err)
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	term := &terminal{tty: tty, keyboard: ptmx, wrote: make(chan struct{}, 1)}
	term.resize(t, width, height)
	var reader sync.WaitGroup
	reader.Go(func() {
		part := make([]byte, 4096)
		for {
			n, err := ptmx.Read(part)
			if err != nil {
				return // the program has closed its side
			}
			term.mu.Lock()
			term.seen.Write(part[:n])
			term.mu.Unlock()
			select {
			case term.wrote <- struct{}{}:
			default:
			}
		}
	})
	t.Cleanup(func() {
		tty.Close()
		reader.Wait()
		ptmx.Close()
	})
	return term
}

func (x *terminal) resize(t *testing.T, width, height uint16) {
	t.Helper()
	require.NoError(t, unix.IoctlSetWinsize(int(x.keyboard.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: width, Row: height}))
}

func (x *terminal) text() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.seen.String()
}

// forget makes waitFor look only at what comes from now on.
func (x *terminal) forget() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.seen.Reset()
}

func (x *terminal) typeKeys(t *testing.T, keys string) {
	t.Helper()
	_, err := x.keyboard.WriteString(keys)
	require.NoError(t, err)
}

// waitFor waits until the program has written a text.
func (x *terminal) waitFor(t *testing.T, text string) {
	t.Helper()
	late := time.After(20 * time.Second)
	for !strings.Contains(x.text(), text) {
		select {
		case <-x.wrote:
		case <-late:
			require.Failf(t, "not on the screen", "%q is not in %q", text, x.text())
		}
	}
}
