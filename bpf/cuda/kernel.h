// The parts of the kernel's own types that are read here, and where a function's arguments are. The loader relocates the types
// against the running kernel's BTF.
#pragma once

#include <linux/bpf.h>
#include <linux/types.h>
#include <stdbool.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct super_block {
	__u32 s_dev;
};
struct inode {
	struct super_block *i_sb;
	unsigned long i_ino;
};
struct qstr {
	const unsigned char *name;
};
struct dentry {
	struct qstr d_name;
};
struct path {
	struct dentry *dentry;
};
struct file {
	struct inode *f_inode;
	struct path f_path;
};
struct vm_area_struct {
	unsigned long vm_start;
	unsigned long vm_end;
	unsigned long vm_flags;
	struct file *vm_file;
};
struct task_struct {
	int tgid;
	__u64 start_boottime;
};
struct seq_file;
struct bpf_iter_meta {
	struct seq_file *seq;
};
struct bpf_iter__task_vma {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
	struct vm_area_struct *vma;
};
#pragma clang attribute pop

// Executable, of vm_flags; the same on every architecture.
#define VM_EXEC 0x4
// What a mapping is asked for with, of mmap(2).
#define PROT_EXEC 0x4

// What a uprobe is given: the registers, which have the first arguments of a function, as the ABI of each architecture says. The
// headers' own types are those of the machine that compiles.
#if defined(__TARGET_ARCH_x86)
struct registers {
	__u64 r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi;
};
#define ARGUMENT_1(r) ((r)->rdi)
#define ARGUMENT_2(r) ((r)->rsi)
#define ARGUMENT_3(r) ((r)->rdx)
#define ARGUMENT_4(r) ((r)->rcx)
#define ARGUMENT_5(r) ((r)->r8)
#elif defined(__TARGET_ARCH_arm64)
struct registers {
	__u64 x[31];
};
#define ARGUMENT_1(r) ((r)->x[0])
#define ARGUMENT_2(r) ((r)->x[1])
#define ARGUMENT_3(r) ((r)->x[2])
#define ARGUMENT_4(r) ((r)->x[3])
#define ARGUMENT_5(r) ((r)->x[4])
#else
#error "unknown architecture"
#endif
