package engine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	bpf "github.com/orb8/orb8/bpf/syscall"
)

// Threads that are gone, threads that live on, and at most so many of other processes that make their first call meanwhile.
const gone, alive, others = 5_000, 500, gone / 2

// What latency remembers of a thread that has no place of its own goes with the thread.
func TestThreadsLeaveNothingBehind(t *testing.T) {
	e := newEngine(t, Options{Latency: true, starts: 1})
	g := newGroup(t)
	storage := newElements(t, e.maps.Crowded)

	before := storage.count(t)
	end := threads(t, g)
	var n int
	assert.Eventually(t, func() bool { n = storage.count(t); return n < before+alive+others }, patience, tick,
		"of %d threads that are gone", gone)
	assert.GreaterOrEqual(t, n, alive-1, "those that live, but for the one that may have the place")
	end()
	assert.Eventually(t, func() bool { return storage.count(t) < before+others }, patience, tick, "of a process that is gone")
	assert.EqualValues(t, gone+alive, drained(t, e).of(g, unused).Latency.Calls(), "every thread made a measured call")
}

// A thread leaves its place when it exits. It has one of two.
func TestThreadsLeaveTheirPlaces(t *testing.T) {
	e := newEngine(t, Options{Latency: true, starts: 4096})
	g := newGroup(t)

	before, _ := taken(t, e)
	end := threads(t, g)
	n, second := taken(t, e)
	assert.Less(t, n, before+alive+others, "of %d threads that are gone", gone)
	assert.GreaterOrEqual(t, n, alive*9/10, "those that live, unless others have their places")
	assert.Positive(t, second, "threads that found another's in their first place")
	end()
	assert.EqualValues(t, gone+alive, drained(t, e).of(g, unused).Latency.Calls(), "every thread made a measured call")
}

// threads has a process of the cgroup start threads, each of which makes one call, and of which the last live until end.
func threads(t *testing.T, g group) (end func()) {
	t.Helper()
	cmd := g.command(t, "/proc/self/exe", fmt.Sprintf("%s=threads:%d,crowd:%d,write:1,read:1", envCalls, gone, alive))
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	_, err = stdout.Read(make([]byte, 1))
	require.NoError(t, err)
	return func() {
		t.Helper()
		_, err := stdin.Write([]byte{1})
		require.NoError(t, err)
		require.NoError(t, cmd.Wait())
	}
}

// taken is how many places are some thread's, and of how many it is the second.
func taken(t *testing.T, e *Engine) (n, second int) {
	t.Helper()
	var cursor ebpf.MapBatchCursor
	places := e.maps.Starts.MaxEntries()
	starts := make([]bpf.SyscallStart, places)
	read, err := e.maps.Starts.BatchLookup(&cursor, make([]uint32, places), starts, nil)
	if !errors.Is(err, ebpf.ErrKeyNotExist) { // there is nothing after it
		require.NoError(t, err)
	}
	require.EqualValues(t, places, read)
	for i := range starts {
		if starts[i].Stack == 0 {
			continue
		}
		n++
		first := uint32(starts[i].Stack*0x9e3779b97f4a7c15>>50) & (places - 1)
		if uint32(i) != first {
			assert.Equal(t, first^1, uint32(i))
			second++
		}
	}
	return n, second
}

// elements counts what is in a map of task storage. No call of bpf(2) tells that, and the memory that the kernel says of such
// a map is that of its buckets alone. So a program walks the kernel's own lists.
type elements struct{ iter *link.Iter }

func newElements(t *testing.T, m *ebpf.Map) elements {
	t.Helper()
	info, err := m.Info()
	require.NoError(t, err)
	id, ok := info.ID()
	require.True(t, ok)
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "elements", Type: ebpf.Tracing, AttachType: ebpf.AttachTraceIter, AttachTo: "bpf_map", License: "GPL",
		Instructions: countElements(t, id),
	})
	require.NoError(t, err)
	t.Cleanup(func() { prog.Close() })
	iter, err := link.AttachIter(link.IterOptions{Program: prog})
	require.NoError(t, err)
	t.Cleanup(func() { iter.Close() })
	return elements{iter}
}

func (e elements) count(t testing.TB) int {
	t.Helper()
	r, err := e.iter.Open()
	require.NoError(t, err)
	defer r.Close()
	count, err := io.ReadAll(r)
	require.NoError(t, err)
	require.Len(t, count, 8)
	return int(binary.NativeEndian.Uint64(count))
}

// The stack of countElements, by offsets from its frame pointer: where it is in the buckets and where they end, the element that
// it is at, and how many there have been.
const (
	atBucket = -8 * (iota + 1)
	endOfBuckets
	atElement
	elementsSeen
)

// countElements is run for every map of the host. Of that with the id it writes how many elements it has.
func countElements(t testing.TB, id ebpf.MapID) asm.Instructions {
	t.Helper()
	kernel, err := btf.LoadKernelSpec()
	require.NoError(t, err)
	var generic, storage, bucket *btf.Struct
	require.NoError(t, kernel.TypeByName("bpf_map", &generic))
	require.NoError(t, kernel.TypeByName("bpf_local_storage_map", &storage))
	require.NoError(t, kernel.TypeByName("bpf_local_storage_map_bucket", &bucket))
	const maxSteps = 1 << 22
	main := asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMem(asm.R7, asm.R6, 8, asm.DWord), // bpf_iter__bpf_map.map; a pointer after the last one is NULL
		asm.JEq.Imm(asm.R7, 0, "exit"),
		asm.LoadMem(asm.R1, asm.R7, int16(offsetOf(t, generic, "id")), asm.Word),
		asm.JNE.Imm(asm.R1, int32(id), "exit"),
		asm.Mov.Imm(asm.R1, 0),
		asm.StoreMem(asm.RFP, atBucket, asm.R1, asm.DWord), asm.StoreMem(asm.RFP, endOfBuckets, asm.R1, asm.DWord),
		asm.StoreMem(asm.RFP, atElement, asm.R1, asm.DWord), asm.StoreMem(asm.RFP, elementsSeen, asm.R1, asm.DWord),
	}
	main = append(main, read(asm.RFP, endOfBuckets, 4, offsetOf(t, storage, "bucket_log"))...)
	main = append(main, read(asm.RFP, atBucket, 8, offsetOf(t, storage, "buckets"))...)
	main = append(main,
		asm.LoadMem(asm.R1, asm.RFP, endOfBuckets, asm.DWord),
		asm.Mov.Imm(asm.R2, int32(bucket.Size)), asm.LSh.Reg(asm.R2, asm.R1),
		asm.LoadMem(asm.R1, asm.RFP, atBucket, asm.DWord), asm.Add.Reg(asm.R2, asm.R1),
		asm.StoreMem(asm.RFP, endOfBuckets, asm.R2, asm.DWord),
		asm.Mov.Reg(asm.R7, asm.R1), asm.Add.Imm(asm.R1, int32(bucket.Size)), // the first bucket, the second
		asm.StoreMem(asm.RFP, atBucket, asm.R1, asm.DWord),
	)
	// Before Linux 6.7 the verifier takes what is known before the loop for true in all of it: were this a 0, it would remove what
	// the loop does with others.
	main = append(main, read(asm.RFP, atElement, 8, 0)...)
	main = append(main,
		asm.Mov.Imm(asm.R1, maxSteps),
		asm.Instruction{OpCode: asm.LoadImmOp(asm.DWord), Dst: asm.R2, Src: asm.PseudoFunc, Constant: -1}.WithReference("step"),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnLoop.Call(),
		asm.LoadMem(asm.R1, asm.R6, 0, asm.DWord), // bpf_iter__bpf_map.meta
		asm.LoadMem(asm.R1, asm.R1, 0, asm.DWord), // bpf_iter_meta.seq
		asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, elementsSeen),
		asm.Mov.Imm(asm.R3, 8),
		asm.FnSeqWrite.Call(),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("exit"),
		asm.Return(),
	)
	return append(declared("elements", main), declared("step", nextElement(read(asm.R6, atElement, 8, 0), int32(bucket.Size)))...)
}

// nextElement is one step of the walk: to the first element of the next bucket, or to the element after this one. follow reads
// the pointer at R7: the head of a list, and the link of an element, hold nothing before it.
func nextElement(follow asm.Instructions, bucketSize int32) asm.Instructions {
	code := asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R2), // the stack of the caller
		asm.LoadMem(asm.R7, asm.R6, atElement, asm.DWord),
		asm.JEq.Imm(asm.R7, 0, "bucket"),
		asm.LoadMem(asm.R1, asm.R6, elementsSeen, asm.DWord),
		asm.Add.Imm(asm.R1, 1),
		asm.StoreMem(asm.R6, elementsSeen, asm.R1, asm.DWord),
		asm.Ja.Label("follow"),
		asm.LoadMem(asm.R7, asm.R6, atBucket, asm.DWord).WithSymbol("bucket"),
		asm.LoadMem(asm.R1, asm.R6, endOfBuckets, asm.DWord),
		asm.JGE.Reg(asm.R7, asm.R1, "stop"),
		asm.Mov.Reg(asm.R1, asm.R7), asm.Add.Imm(asm.R1, bucketSize),
		asm.StoreMem(asm.R6, atBucket, asm.R1, asm.DWord),
	}
	follow[0] = follow[0].WithSymbol("follow")
	code = append(code, follow...)
	return append(code,
		asm.Mov.Imm(asm.R0, 0), asm.Return(),
		asm.Mov.Imm(asm.R0, 1).WithSymbol("stop"), asm.Return(),
	)
}

// declared gives a function the type without which the verifier takes no callback.
func declared(name string, code asm.Instructions) asm.Instructions {
	number := &btf.Int{Name: "long", Size: 8, Encoding: btf.Signed}
	code[0] = btf.WithFuncMetadata(code[0].WithSymbol(name), &btf.Func{
		Name: name, Linkage: btf.StaticFunc,
		Type: &btf.FuncProto{Return: number, Params: []btf.FuncParam{{Name: "a", Type: number}, {Name: "b", Type: number}}},
	})
	return code
}

// read copies what is at an offset from R7 to a stack.
func read(stack asm.Register, to, size, offset int32) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(asm.R3, asm.R7), asm.Add.Imm(asm.R3, offset),
		asm.Mov.Imm(asm.R2, size),
		asm.Mov.Reg(asm.R1, stack), asm.Add.Imm(asm.R1, to),
		asm.FnProbeReadKernel.Call(),
	}
}

func offsetOf(t testing.TB, s *btf.Struct, member string) int32 {
	t.Helper()
	for _, m := range s.Members {
		if m.Name == member {
			return int32(m.Offset.Bytes())
		}
	}
	require.Fail(t, "no member "+member, s.Name)
	return 0
}
