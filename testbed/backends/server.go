//go:build linux

package backends

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/orb8/orb8/internal/testutil"
)

// Require is what ORB8_REQUIRE calls the engines.
const Require = "backends"

const (
	// startTimeout is how long an engine may take until it answers. Loki's rings take seconds.
	startTimeout = 60 * time.Second
	// stopTimeout is how long it may take to end by itself.
	stopTimeout = 20 * time.Second
)

// Server is an engine's process on an address of its own. The test's end stops it and removes what it keeps.
type Server struct {
	// URL is the engine's address, without a path.
	URL string

	// client is one that the engine lets in.
	client  *http.Client
	t       testing.TB
	program string
	args    []string
	ready   string
	log     logBuffer
	cmd     *exec.Cmd
	exited  chan struct{}
}

// start starts an engine that listens on an address, and waits until the path ready answers. A test is skipped where the engine is
// not built.
func start(t testing.TB, e engine, address, ready string, args ...string) *Server {
	t.Helper()
	return startAt(t, e, http.DefaultClient, "http://"+address, ready, args...)
}

func startAt(t testing.TB, e engine, client *http.Client, url, ready string, args ...string) *Server {
	t.Helper()
	program, err := e.program()
	testutil.Require(t, Require, err == nil, fmt.Sprint(err))
	s := &Server{URL: url, client: client, t: t, program: program, args: args, ready: ready}
	t.Cleanup(func() {
		s.Kill() // nobody needs its data any more
		if t.Failed() {
			t.Logf("end of the log of %s:\n%s", filepath.Base(program), s.log.tail())
		}
	})
	s.Start()
	return s
}

// Start starts the engine again where Stop or Kill ended it.
func (s *Server) Start() {
	s.t.Helper()
	s.cmd = exec.Command(s.program, s.args...)
	s.cmd.Stdout, s.cmd.Stderr = &s.log, &s.log
	// It ends with the test, however that ends.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(s.t, s.cmd.Start())
	exited := make(chan struct{})
	s.exited = exited
	go func(cmd *exec.Cmd) {
		_ = cmd.Wait() // the exit code stays in ProcessState
		close(exited)
	}(s.cmd)
	for deadline := time.Now().Add(startTimeout); ; {
		if response, err := s.client.Get(s.URL + s.ready); err == nil {
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return
			}
		}
		select {
		case <-exited:
			s.t.Fatalf("%s ended: %s\n%s", filepath.Base(s.program), s.cmd.ProcessState, s.log.tail())
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%s does not answer after %s\n%s", filepath.Base(s.program), startTimeout, s.log.tail())
		}
	}
}

// Stop ends the engine as an init system does.
func (s *Server) Stop() { s.end(syscall.SIGTERM) }

// Kill ends the engine at once.
func (s *Server) Kill() { s.end(syscall.SIGKILL) }

// Freeze keeps the engine from answering, until Thaw.
func (s *Server) Freeze() {
	s.t.Helper()
	require.NoError(s.t, s.cmd.Process.Signal(syscall.SIGSTOP))
	// Its threads stop one by one, and one may answer meanwhile.
	require.Eventually(s.t, func() bool {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", s.cmd.Process.Pid))
		for _, thread := range threads {
			text, err := os.ReadFile(thread)
			if _, state, _ := bytes.Cut(text, []byte(") ")); err != nil || !bytes.HasPrefix(state, []byte("T")) {
				return false
			}
		}
		return err == nil && len(threads) > 0
	}, stopTimeout, 5*time.Millisecond)
}

// Thaw ends Freeze.
func (s *Server) Thaw() { require.NoError(s.t, s.cmd.Process.Signal(syscall.SIGCONT)) }

func (s *Server) end(signal os.Signal) {
	if s.cmd == nil || s.cmd.Process == nil {
		return
	}
	_ = s.cmd.Process.Signal(signal) // or it has ended already
	select {
	case <-s.exited:
	case <-time.After(stopTimeout):
		_ = s.cmd.Process.Kill()
		<-s.exited
	}
}

// logBuffer keeps the end of a process's output.
type logBuffer struct {
	mu  sync.Mutex
	buf []byte
}

const logBytes = 16 << 10

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.buf = append(b.buf, p...)
	if extra := len(b.buf) - 2*logBytes; extra > 0 {
		b.buf = append(b.buf[:0], b.buf[extra+logBytes:]...)
	}
	return len(p), nil
}

func (b *logBuffer) tail() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := b.buf[max(0, len(b.buf)-logBytes):]
	lines := bytes.Split(bytes.TrimSpace(all), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-20):], []byte("\n")))
}
