// Which processes map a CUDA library, and when another one is mapped.
#pragma once

#include <linux/bpf.h>
#include <linux/types.h>
#include <stdbool.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "kernel.h"

#define NAME 64

// One executable mapping of a file whose name begins as those of CUDA's libraries do. The device and inode number are the file's
// own: of a file in an overlay stat(2) tells others, which differ from mount to mount.
struct mapping {
	__u64 inode;
	__u64 start;
	__u64 end;
	__u64 born; // when the process began: ids come again
	__u32 device; // as the kernel writes it: 20 bits of minor number
	__u32 pid;
	char name[NAME];
};

// Key: 0. Value: a mapping that is being written, for which the stack has no room. Never deleted.
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct mapping);
} scratch SEC(".maps");

// A byte for each mapping that is made of such a file, which is user space's word to look. Size: a page; user space sets it. What
// finds no room is no loss: there are bytes enough.
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} wakeups SEC(".maps");

static __always_inline bool is_cuda(const char *name)
{
	return name[0] == 'l' && name[1] == 'i' && name[2] == 'b' && name[3] == 'c' && name[4] == 'u' && name[5] == 'd' && name[6] == 'a';
}

// A task iterator shows a process of several threads once, as they share their files.
SEC("iter/task_vma")
int find(struct bpf_iter__task_vma *ctx)
{
	struct vm_area_struct *vma = ctx->vma;
	struct task_struct *task = ctx->task;
	__u32 zero = 0;

	if (!vma || !task || !(vma->vm_flags & VM_EXEC))
		return 0;
	struct file *file = vma->vm_file;
	if (!file)
		return 0;
	struct mapping *m = bpf_map_lookup_elem(&scratch, &zero);
	if (!m)
		return 0;
	if (bpf_probe_read_kernel_str(m->name, NAME, BPF_CORE_READ(file, f_path.dentry, d_name.name)) < 8 || !is_cuda(m->name))
		return 0;
	m->inode = file->f_inode->i_ino;
	m->device = file->f_inode->i_sb->s_dev;
	m->start = vma->vm_start;
	m->end = vma->vm_end;
	m->born = task->start_boottime;
	m->pid = task->tgid;
	bpf_seq_write(ctx->meta->seq, m, sizeof(*m));
	return 0;
}

// Runs as memory is mapped, whether or not it then is.
SEC("fentry/security_mmap_file")
int map_file(__u64 *ctx)
{
	struct file *file = (struct file *)ctx[0];
	char name[8];

	if (!file || !(ctx[1] & PROT_EXEC))
		return 0;
	if (bpf_probe_read_kernel(name, sizeof(name), BPF_CORE_READ(file, f_path.dentry, d_name.name)) || !is_cuda(name))
		return 0;
	__u8 *byte = bpf_ringbuf_reserve(&wakeups, 1, 0);
	if (byte) {
		*byte = 1;
		bpf_ringbuf_submit(byte, BPF_RB_FORCE_WAKEUP);
	}
	return 0;
}
