package main

import (
	"context"
	_ "embed"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	collectorProgram = "orb8-collector"
	// stopTimeout is how long a collector may take to end by itself.
	stopTimeout = 5 * time.Second
)

//go:embed tracenode.yaml
var traceConfig string

// startHere starts a collector on this host, and returns a connection that ends it when it is closed.
func (n *traceNode) startHere(ctx context.Context, a *app, node string) (*connection, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	address := l.Addr().String()
	l.Close() // it is the collector's, unless somebody is quicker
	a.notice("starting a collector on this host, which has none")
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("it took longer than %v", startTimeout))
	defer cancel()
	collector, err := startCollector(n.receiver, address, node, namesFrom(""))
	if err != nil {
		return nil, err
	}
	t := target{}
	c, err := t.dial("", address)
	if err == nil {
		err = c.awaitAnswer(ctx, collector.done)
	}
	if err != nil {
		collector.stop()
		return nil, fmt.Errorf("the collector of this host does not answer: %w%s", err, collector.said())
	}
	closeConnection := c.close
	c.name = "this host"
	c.close = func() {
		closeConnection()
		collector.stop()
	}
	return c, nil
}

// collector is one that was started for a command.
type collector struct {
	*child
	log *tailWriter
}

// startCollector starts a collector that answers at an address about a node, and ends with this process.
func startCollector(receiver, address, node, names string) (*collector, error) {
	program, err := findCollector()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(program, "--config", "env:ORB8_TRACE_CONFIG")
	cmd.Env = append(os.Environ(), "ORB8_TRACE_CONFIG="+traceConfig, "ORB8_TRACE_RECEIVER="+receiver,
		"ORB8_TRACE_ENDPOINT="+address, "NODE_NAME="+node, "ORB8_TRACE_NAMES="+names)
	cmd.SysProcAttr = childAttributes()
	c := &collector{log: &tailWriter{}}
	cmd.Stdout, cmd.Stderr = c.log, c.log
	c.child, err = startChild(cmd)
	return c, err
}

// findCollector looks next to this program, and then where programs are.
func findCollector() (string, error) {
	if self, err := os.Executable(); err == nil {
		if self, err = filepath.EvalSymlinks(self); err == nil {
			beside := filepath.Join(filepath.Dir(self), collectorProgram)
			if _, err := os.Stat(beside); err == nil {
				return beside, nil
			}
		}
	}
	program, err := exec.LookPath(collectorProgram)
	if err != nil {
		return "", fmt.Errorf("cannot find %s, neither next to this program nor in the PATH", collectorProgram)
	}
	return program, nil
}

// stop ends the collector, in order if it can.
func (c *collector) stop() {
	_ = c.cmd.Process.Signal(syscall.SIGTERM) // it fails where the process has ended
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	_ = c.wait(ctx) // how it ends is no longer of interest
}

// said is what a collector that failed said last.
func (c *collector) said() string {
	if lines := strings.Split(strings.TrimSpace(c.log.String()), "\n"); lines[len(lines)-1] != "" {
		return "; " + strings.TrimPrefix(lines[len(lines)-1], "Error: ")
	}
	return ""
}

// tailWriter keeps the end of what is written to it.
type tailWriter struct {
	mu  sync.Mutex
	buf []byte
}

const tailBytes = 4096

func (w *tailWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf = append(w.buf, p...)
	w.buf = w.buf[max(0, len(w.buf)-tailBytes):]
	return len(p), nil
}

func (w *tailWriter) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return string(w.buf)
}
