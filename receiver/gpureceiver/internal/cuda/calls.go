// Package cuda counts calls of CUDA's driver library in the kernel, by cgroup, with uprobes: launches, allocations, copies and
// waits. It finds the library in whichever container has it. It knows nothing of metrics.
package cuda

import (
	"strings"
	"time"
)

// Kind is what a call is counted as. The numbers are those of bpf/cuda.
type Kind uint8

const (
	// KernelLaunch and GraphLaunch start work on the GPU: one kernel, or a graph of them.
	KernelLaunch Kind = 1
	GraphLaunch  Kind = 2
	// Allocation is of memory on the GPU, with its bytes.
	Allocation Kind = 3
	// StreamSynchronize, ContextSynchronize and EventSynchronize wait for the GPU.
	StreamSynchronize  Kind = 4
	ContextSynchronize Kind = 5
	EventSynchronize   Kind = 6
	// Copies, with their bytes, by where from and where to. CopyDefault is one of which the driver alone knows that.
	CopyHostToHost     Kind = 8
	CopyHostToDevice   Kind = 9
	CopyDeviceToHost   Kind = 10
	CopyDeviceToDevice Kind = 11
	CopyDefault        Kind = 12
)

// sampledKind is added to a kind by functions that are looked at only some of the time.
const sampledKind Kind = 0x80

// Waits is true of calls that wait for the GPU.
func (k Kind) Waits() bool { return k >= StreamSynchronize && k <= EventSynchronize }

// family is what is looked at as one: a process that is seen launching by one library is not looked at by another.
type family uint8

const (
	launches family = iota
	graphs
	allocations
	copies
	streamWaits
	contextWaits
	eventWaits
)

func (k Kind) family() family {
	switch k {
	case KernelLaunch:
		return launches
	case GraphLaunch:
		return graphs
	case Allocation:
		return allocations
	case StreamSynchronize:
		return streamWaits
	case ContextSynchronize:
		return contextWaits
	case EventSynchronize:
		return eventWaits
	}
	return copies
}

// Buckets is how many buckets waits have.
const Buckets = 24

// Bound returns how long the waits of a bucket take at most. The last has no bound.
func Bound(bucket int) time.Duration { return 1024 << bucket }

// Count is what a cgroup called of one kind.
type Count struct {
	Calls, Bytes uint64
	// Wait and Buckets are of the waits that have ended: their time, and how many took how long.
	Wait    time.Duration
	Buckets [Buckets]uint64
}

// Add adds n to c.
func (c *Count) Add(n *Count) {
	c.Calls += n.Calls
	c.Bytes += n.Bytes
	c.Wait += n.Wait
	for i, calls := range n.Buckets {
		c.Buckets[i] += calls
	}
}

// scale makes a sample stand for all.
func (c *Count) scale(factor uint64) {
	c.Calls *= factor
	c.Bytes *= factor
	c.Wait *= time.Duration(factor)
	for i := range c.Buckets {
		c.Buckets[i] *= factor
	}
}

// bytesAt is where a function's arguments say how many bytes it is about; as enum bytes of bpf/cuda.
type bytesAt uint8

const (
	noBytes      bytesAt = 0
	inArgument2  bytesAt = 2
	inArgument3  bytesAt = 3
	inArgument4  bytesAt = 4
	inArgument5  bytesAt = 5
	inPitch      bytesAt = 6 // width times height
	inMemcpy2D   bytesAt = 7
	inMemcpy3D   bytesAt = 8
	inRuntimeArg bytesAt = 9 // with the kind in the next
)

// function is one that is exported by a library and looked at.
type function struct {
	name  string
	kind  Kind
	bytes bytesAt
}

// library is a library of CUDA's.
type library uint8

const (
	noLibrary library = iota
	// driver is libcuda, which comes with the kernel's driver and which everything else calls.
	driver
	// runtime is libcudart, which many programs have linked in.
	runtime
)

// libraryOf tells which library a file is, by its name: libcuda.so.1, libcuda.so.580.65.06, libcudart.so.12, and with a hash before
// the suffix as Python's packages have it.
func libraryOf(name string) library {
	base, _, ok := strings.Cut(name, ".so")
	switch {
	case !ok:
		return noLibrary
	case base == "libcuda":
		return driver
	case base == "libcudart", strings.HasPrefix(base, "libcudart-"):
		return runtime
	}
	return noLibrary
}

// functions are those of a library, each under the names that cuda.h and cuda_runtime_api.h give it by version and by what the
// default stream is to a program: the legacy one, or its thread's own (_ptsz, _ptds).
func (l library) functions() []function {
	if l == runtime {
		return runtimeFunctions()
	}
	return driverFunctions()
}

func driverFunctions() []function {
	var all []function
	add := func(kind Kind, bytes bytesAt, names ...string) {
		for _, name := range names {
			all = append(all, function{name, kind, bytes})
		}
	}
	// Of functions of a stream.
	streams := func(kind Kind, bytes bytesAt, names ...string) {
		for _, name := range names {
			add(kind, bytes, name, name+"_ptsz")
		}
	}
	// Of functions that use the default stream.
	implied := func(kind Kind, bytes bytesAt, names ...string) {
		for _, name := range names {
			add(kind, bytes, name, name+"_ptds")
		}
	}
	streams(KernelLaunch, noBytes, "cuLaunchKernel", "cuLaunchKernelEx", "cuLaunchCooperativeKernel")
	streams(GraphLaunch, noBytes, "cuGraphLaunch")
	add(Allocation, inArgument2, "cuMemAlloc_v2", "cuMemAllocManaged", "cuMemCreate")
	add(Allocation, inPitch, "cuMemAllocPitch_v2")
	streams(Allocation, inArgument2, "cuMemAllocAsync", "cuMemAllocFromPoolAsync")
	implied(CopyHostToDevice, inArgument3, "cuMemcpyHtoD_v2")
	streams(CopyHostToDevice, inArgument3, "cuMemcpyHtoDAsync_v2")
	implied(CopyDeviceToHost, inArgument3, "cuMemcpyDtoH_v2")
	streams(CopyDeviceToHost, inArgument3, "cuMemcpyDtoHAsync_v2")
	implied(CopyDeviceToDevice, inArgument3, "cuMemcpyDtoD_v2")
	streams(CopyDeviceToDevice, inArgument3, "cuMemcpyDtoDAsync_v2")
	implied(CopyDeviceToDevice, inArgument5, "cuMemcpyPeer")
	streams(CopyDeviceToDevice, inArgument5, "cuMemcpyPeerAsync")
	implied(CopyHostToDevice, inArgument4, "cuMemcpyHtoA_v2")
	streams(CopyHostToDevice, inArgument4, "cuMemcpyHtoAAsync_v2")
	implied(CopyDeviceToHost, inArgument4, "cuMemcpyAtoH_v2")
	streams(CopyDeviceToHost, inArgument4, "cuMemcpyAtoHAsync_v2")
	implied(CopyDeviceToDevice, inArgument4, "cuMemcpyDtoA_v2", "cuMemcpyAtoD_v2")
	implied(CopyDeviceToDevice, inArgument5, "cuMemcpyAtoA_v2")
	implied(CopyDefault, inArgument3, "cuMemcpy")
	streams(CopyDefault, inArgument3, "cuMemcpyAsync")
	implied(CopyDefault, inMemcpy2D, "cuMemcpy2D_v2", "cuMemcpy2DUnaligned_v2")
	streams(CopyDefault, inMemcpy2D, "cuMemcpy2DAsync_v2")
	implied(CopyDefault, inMemcpy3D, "cuMemcpy3D_v2")
	streams(CopyDefault, inMemcpy3D, "cuMemcpy3DAsync_v2")
	streams(StreamSynchronize, noBytes, "cuStreamSynchronize")
	add(ContextSynchronize, noBytes, "cuCtxSynchronize", "cuCtxSynchronize_v2")
	add(EventSynchronize, noBytes, "cuEventSynchronize")
	return all
}

func runtimeFunctions() []function {
	var all []function
	add := func(kind Kind, bytes bytesAt, names ...string) {
		for _, name := range names {
			all = append(all, function{name, kind, bytes})
		}
	}
	add(KernelLaunch, noBytes, "cudaLaunchKernel", "cudaLaunchKernel_ptsz", "cudaLaunchKernelExC", "cudaLaunchKernelExC_ptsz",
		"cudaLaunchCooperativeKernel", "cudaLaunchCooperativeKernel_ptsz")
	add(GraphLaunch, noBytes, "cudaGraphLaunch", "cudaGraphLaunch_ptsz")
	add(Allocation, inArgument2, "cudaMalloc", "cudaMallocManaged", "cudaMallocAsync", "cudaMallocAsync_ptsz",
		"cudaMallocFromPoolAsync", "cudaMallocFromPoolAsync_ptsz")
	add(Allocation, inPitch, "cudaMallocPitch")
	add(CopyDefault, inRuntimeArg, "cudaMemcpy", "cudaMemcpy_ptds", "cudaMemcpyAsync", "cudaMemcpyAsync_ptsz")
	add(CopyDeviceToDevice, inArgument5, "cudaMemcpyPeer", "cudaMemcpyPeerAsync")
	add(StreamSynchronize, noBytes, "cudaStreamSynchronize", "cudaStreamSynchronize_ptsz")
	add(ContextSynchronize, noBytes, "cudaDeviceSynchronize")
	add(EventSynchronize, noBytes, "cudaEventSynchronize")
	return all
}
