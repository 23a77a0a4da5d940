package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// parentVariable makes TestChildEndsWithItsParent the process that is killed.
const parentVariable = "ORB8_TEST_PARENT"

// TestChildEndsWithItsParent holds that kubectl does not stay behind when this process is killed, as it could not clean up then.
func TestChildEndsWithItsParent(t *testing.T) {
	if os.Getenv(parentVariable) != "" {
		cmd := exec.Command("sleep", "600")
		cmd.SysProcAttr = childAttributes()
		child, err := startChild(cmd)
		require.NoError(t, err)
		fmt.Printf("child %d\n", child.cmd.Process.Pid)
		<-child.done
		return
	}
	parent := exec.Command(os.Args[0], "-test.run=^TestChildEndsWithItsParent$")
	parent.Env = append(os.Environ(), parentVariable+"=yes")
	stdout, err := parent.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, parent.Start())
	pid := 0
	for lines := bufio.NewScanner(stdout); pid == 0 && lines.Scan(); {
		_, _ = fmt.Sscanf(lines.Text(), "child %d", &pid)
	}
	require.NotZero(t, pid)
	require.True(t, isRunning(pid))
	require.NoError(t, parent.Process.Kill())
	require.Error(t, parent.Wait())
	assert.Eventually(t, func() bool { return !isRunning(pid) }, 10*time.Second, 10*time.Millisecond)
}

// TestWaitingForKubectl holds that a user at a terminal is told what takes so long.
func TestWaitingForKubectl(t *testing.T) {
	agent := (&fakeCollector{status: cannedStatus()}).serve(t)
	calls := fakeKubectl(t, "read go <$(dirname $0)/gate; "+forwardTo(agent))
	gate := filepath.Join(filepath.Dir(calls), "gate")
	require.NoError(t, unix.Mkfifo(gate, 0o600))
	terminal := newTerminal(t, 200, 20)
	a := &app{now: testNow}
	done := make(chan int)
	var stdout bytes.Buffer
	go func() { done <- run(t.Context(), a, []string{"status"}, &stdout, terminal.tty) }()
	terminal.waitFor(t, "orb8: waiting for kubectl to reach the cluster, 10s at most; --server and --agent name a collector")
	require.NoError(t, os.WriteFile(gate, []byte("go\n"), 0o600))
	assert.Zero(t, <-done, terminal.text())
	assert.Contains(t, stdout.String(), "collector deploy/orb8-gateway by kubectl\n")
	assert.Equal(t, 1, strings.Count(terminal.text(), "orb8:"), terminal.text())
}

// isRunning is false of a process that has ended, also where nobody has asked yet how.
func isRunning(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, after, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(after, "Z")
}
