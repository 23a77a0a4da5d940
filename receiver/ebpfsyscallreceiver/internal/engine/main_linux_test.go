package engine

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// envCalls has this binary make system calls rather than run tests: a list of NUMBER:TIMES, one after the other.
const envCalls = "ORB8_TEST_CALLS"

func TestMain(m *testing.M) {
	if calls := os.Getenv(envCalls); calls != "" {
		makeCalls(calls)
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func makeCalls(list string) {
	runtime.LockOSThread()
	missing := append([]byte("/there is no such file"), 0)
	for item := range strings.SplitSeq(list, ",") {
		what, n, _ := strings.Cut(item, ":")
		times, err := strconv.Atoi(n)
		if err != nil {
			panic(err)
		}
		switch what {
		case "missing":
			for range times {
				_, _, _ = unix.RawSyscall6(unix.SYS_OPENAT, ^uintptr(99), uintptr(unsafe.Pointer(&missing[0])), 0, 0, 0, 0)
			}
		case "sleep": // milliseconds, once
			ts := unix.NsecToTimespec(int64(times) * int64(time.Millisecond))
			_ = unix.Nanosleep(&ts, nil)
		default:
			number, err := strconv.Atoi(what)
			if err != nil {
				panic(err)
			}
			for range times {
				_, _, _ = unix.RawSyscall(uintptr(number), 0, 0, 0)
			}
		}
	}
}
