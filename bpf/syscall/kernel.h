// The parts of the kernel's own types that are read here, and who makes a call. The loader relocates them against the running
// kernel's BTF.
#pragma once

#include <linux/bpf.h>
#include <linux/types.h>
#include <stdbool.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct kernfs_node {
	__u64 id;
};
struct cgroup {
	struct kernfs_node *kn;
};
struct css_set {
	struct cgroup *dfl_cgrp; // in the cgroup v2 hierarchy
};
struct thread_info {
	unsigned long flags;
	__u32 status; // x86 only
};
struct task_struct {
	struct thread_info thread_info;
	struct css_set *cgroups;
};
#pragma clang attribute pop

// The conventions of calling the kernel, as internal/syscalls numbers them.
enum abi {
	ABI_X86_64 = 1,
	ABI_I386 = 2,
	ABI_X32 = 3,
	ABI_ARM64 = 4,
	ABI_ARM = 5,
};

#if defined(__TARGET_ARCH_x86)
#define ABI_FIRST ABI_X86_64
#define ABIS 3
#define TS_COMPAT 2
#define X32_BIT 0x40000000
#elif defined(__TARGET_ARCH_arm64)
#define ABI_FIRST ABI_ARM64
#define ABIS 2
#define TIF_32BIT 22
#else
#error "unknown architecture"
#endif

// False: the kernel is asked by helpers for what could be read, and no atomic addition returns a value. Linux before 5.12.
const volatile bool modern = true;

// A call by its cgroup and ABI, (cgroup id << 3 | ABI), which is never 0, and its number.
struct caller {
	__u64 key;
	__u32 number;
};

static __always_inline struct task_struct *current_task(void)
{
	return modern ? bpf_get_current_task_btf() : (struct task_struct *)bpf_get_current_task();
}

static __always_inline bool is_compat(const struct task_struct *task)
{
#if defined(__TARGET_ARCH_x86)
	// Set also while a 64-bit process calls by int 0x80, which is an i386 call.
	__u32 status = modern ? task->thread_info.status : BPF_CORE_READ(task, thread_info.status);
	return status & TS_COMPAT;
#else
	unsigned long flags = modern ? task->thread_info.flags : BPF_CORE_READ(task, thread_info.flags);
	return flags >> TIF_32BIT & 1;
#endif
}

static __always_inline struct caller caller_of(const struct task_struct *task, __u32 number)
{
	struct caller c = {.number = number};
	enum abi abi;

#if defined(__TARGET_ARCH_x86)
	abi = ABI_X86_64;
	if (is_compat(task)) {
		abi = ABI_I386;
	} else if ((number & (X32_BIT | 1U << 31)) == X32_BIT) {
		abi = ABI_X32;
		c.number &= ~X32_BIT;
	}
#else
	abi = is_compat(task) ? ABI_ARM : ABI_ARM64;
#endif
	// A read of the type takes a tenth of the helper's time.
	c.key = (modern ? task->cgroups->dfl_cgrp->kn->id : bpf_get_current_cgroup_id()) << 3 | abi;
	return c;
}
