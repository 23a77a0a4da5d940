// A libcuda, or with -DRUNTIME a libcudart, that does nothing but wait where it is told to.
#include <stddef.h>
#include <time.h>

// Each function begins with instructions that -DBEGIN=... names, and goes on in C.
#define PUSH 1    // what the kernel emulates
#define ENDBR 2   // one before that leaves all as it is
#define SUB 3     // one that moves the stack
#define TEST 4    // what is single-stepped
#ifndef BEGIN
#define BEGIN PUSH
#endif

#if defined(__x86_64__)
#if BEGIN == PUSH
#define FIRST "push %rbp; pop %rbp; jmp "
#elif BEGIN == ENDBR
#define FIRST "endbr64; push %rbp; pop %rbp; jmp "
#elif BEGIN == SUB
#define FIRST "sub $8,%rsp; push %rbp; pop %rbp; add $8,%rsp; jmp "
#else
#define FIRST "test %rdi,%rdi; jmp "
#endif
#else
#if BEGIN == TEST
#define FIRST "mov x9, x0; b "
#else
#define FIRST "b "
#endif
#endif

#define EXPORT(name) \
	__asm__(".globl " #name "\n.type " #name ",%function\n" #name ": " FIRST "body_" #name "\n.size " #name ",.-" #name); \
	__attribute__((visibility("hidden"), used)) long body_##name
#define FUNCTION(name) EXPORT(name)(void) { return 0; }
// Waits as many microseconds as its argument says.
#define WAIT(name) EXPORT(name)(size_t us) { struct timespec t = {us / 1000000, us % 1000000 * 1000}; if (us) nanosleep(&t, NULL); return 0; }

#ifdef RUNTIME
FUNCTION(cudaLaunchKernel)
FUNCTION(cudaMalloc)
FUNCTION(cudaMemcpy)
WAIT(cudaStreamSynchronize)
#else
FUNCTION(cuLaunchKernel)
FUNCTION(cuLaunchKernel_ptsz)
FUNCTION(cuLaunchKernelEx)
FUNCTION(cuGraphLaunch)
FUNCTION(cuMemAlloc_v2)
FUNCTION(cuMemAllocPitch_v2)
FUNCTION(cuMemcpyHtoD_v2)
FUNCTION(cuMemcpyDtoHAsync_v2)
FUNCTION(cuMemcpyPeer)
FUNCTION(cuMemcpy)
FUNCTION(cuMemcpy2D_v2)
FUNCTION(cuMemcpy3D_v2)
WAIT(cuStreamSynchronize)
WAIT(cuCtxSynchronize)
WAIT(cuEventSynchronize)
// Another name of one function.
__asm__(".globl cuLaunchKernelEx_ptsz\n.type cuLaunchKernelEx_ptsz,%function\n.set cuLaunchKernelEx_ptsz, cuLaunchKernelEx");
#endif
