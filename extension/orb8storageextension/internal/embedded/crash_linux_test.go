package embedded

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/storage"
	"github.com/orb8/orb8/internal/testutil"
)

const (
	envCrashDirectory = "ORB8_TEST_CRASH_DIRECTORY"
	envCrashFrom      = "ORB8_TEST_CRASH_FROM"
	envFullDirectory  = "ORB8_TEST_FULL_DIRECTORY"
	crashBatch        = 500
)

// child returns a command that runs one test of this binary in a process of its own.
func child(t *testing.T, test string, env ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^"+test+"$", "-test.v")
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = os.Stderr
	return cmd
}

// TestCrashWriter is the process that is killed. It tells each batch that was acknowledged.
func TestCrashWriter(t *testing.T) {
	dir := os.Getenv(envCrashDirectory)
	if dir == "" {
		t.Skip("it is a part of TestKilledWhileItWrites")
	}
	from, err := strconv.Atoi(os.Getenv(envCrashFrom))
	require.NoError(t, err)
	s, _ := openTestStore(t, dir, func(s *Settings) { s.Disk.HeadBytes, s.Disk.FsyncInterval = MinHeadBytes, 0 })
	for i := from; ; i++ {
		_, err := s.WriteFlows(t.Context(), many(crashBatch, i))
		require.NoError(t, err)
		fmt.Printf("acknowledged %d\n", i)
	}
}

// A sender that hears nothing of a batch sends it again, and one that was acknowledged just before may come again, too.
func TestKilledWhileItWrites(t *testing.T) {
	const kills = 20
	dir := t.TempDir()
	acknowledged := -1
	for i := range kills {
		cmd := child(t, "TestCrashWriter", envCrashDirectory+"="+dir, fmt.Sprintf("%s=%d", envCrashFrom, max(acknowledged, 0)))
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		lines := bufio.NewScanner(out)
		// At any point between two batches or within one: of the journal, a block, a merge.
		after := acknowledged + 1 + rand.IntN(30)
		for lines.Scan() {
			var n int
			if _, err := fmt.Sscanf(lines.Text(), "acknowledged %d", &n); err != nil {
				continue
			}
			acknowledged = max(acknowledged, n)
			if n == after {
				go func() {
					time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond) // the instant is what is tested
					_ = cmd.Process.Kill()
				}()
			}
		}
		err = cmd.Wait()
		var exit *exec.ExitError
		require.True(t, errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL, "kill %d: %v", i, err)
	}

	s, _ := openTestStore(t, dir)
	for i := range acknowledged + 1 {
		result := query(t, s, storage.FlowQuery{Since: at(i), Until: at(i).Add(time.Nanosecond)})
		require.Zero(t, result.Lost)
		var packets uint64
		for _, f := range result.Flows {
			packets += f.Packets
		}
		require.EqualValues(t, crashBatch*record(0, 0).Packets, packets, "batch %d of %d", i, acknowledged)
	}
	damaged, err := filepath.Glob(filepath.Join(dir, "blocks", "*.damaged"))
	require.NoError(t, err)
	assert.Empty(t, damaged)
	t.Logf("%d batches acknowledged, %d blocks", acknowledged+1, len(blocksOf(t, dir)))
}

func TestFullDisk(t *testing.T) {
	if os.Getenv(envFullDirectory) != "" {
		fillDisk(t, os.Getenv(envFullDirectory))
		return
	}
	testutil.Require(t, "bpf", os.Geteuid() == 0, "mounting a file system of its own needs root")
	cmd := child(t, "TestFullDisk", envFullDirectory+"="+t.TempDir())
	cmd.Stdout = os.Stdout
	// The mount is gone with the process.
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	require.NoError(t, cmd.Run())
}

func fillDisk(t *testing.T, dir string) {
	require.NoError(t, syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""))
	require.NoError(t, syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=6m"))
	other := filepath.Join(dir, "of-others")
	require.NoError(t, os.WriteFile(other, make([]byte, 4<<20), 0o600))
	reports := make(chan error, 100)
	// The batches' own memory would hold them: the disk is what is short.
	settings := func(s *Settings) {
		s.Disk.HeadBytes, s.Disk.Report = MinHeadBytes, func(err error) { reports <- err }
	}
	store := filepath.Join(dir, "store")
	s, _ := openTestStore(t, store, settings)
	var taken uint64
	var err error
	next := 0
	// A block that could not be written leaves room when it is removed: what is refused is sent again until it is refused for good.
	for refused := 0; refused < 5; {
		if _, err = s.WriteFlows(t.Context(), random(1000, next)); err == nil {
			taken += 1000
			next++
			refused = 0
		} else {
			refused++
		}
	}
	require.ErrorIs(t, err, syscall.ENOSPC)
	assert.ErrorIs(t, <-reports, syscall.ENOSPC)
	result := query(t, s, storage.FlowQuery{SeparateEnds: true})
	assert.Zero(t, result.Lost, "queries go on")
	assert.EqualValues(t, taken, sumOf(result))

	require.NoError(t, os.Remove(other))
	require.Eventually(t, func() bool {
		_, err := s.WriteFlows(t.Context(), random(1000, next))
		return err == nil
	}, 30*time.Second, 10*time.Millisecond)
	taken += 1000
	assert.EqualValues(t, taken, sumOf(query(t, s, storage.FlowQuery{SeparateEnds: true})))
	require.Eventually(t, func() bool {
		var last error
		for len(reports) > 0 {
			last = <-reports
			if last == nil {
				return true
			}
		}
		return false
	}, 30*time.Second, 10*time.Millisecond, "it says that it takes records again")
	seal(t, s)
	require.NoError(t, s.Close())
	s, _ = openTestStore(t, store, settings)
	result = query(t, s, storage.FlowQuery{SeparateEnds: true})
	assert.EqualValues(t, taken, sumOf(result), "what was refused is not there twice")
	assert.Zero(t, result.Lost)
}

// random returns n records of a second that hardly compress, the same for the same second.
func random(n, second int) []flow.Record {
	records := many(n, second)
	source := rand.New(rand.NewPCG(1, uint64(second)))
	for i := range records {
		records[i].Bytes = source.Uint64()
		records[i].Start = records[i].Start.Add(time.Duration(source.IntN(1e9)))
		records[i].End = records[i].Start
	}
	return records
}
