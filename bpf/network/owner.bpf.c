//go:build ignore

// Marks every socket with the process that made it: new ones as they are made, the others once by an iterator.
#include "kernel.h"
#include "owner.h"

char LICENSE[] SEC("license") = "GPL";

#define AF_INET 2
#define AF_INET6 10

// Further parts of the kernel's types.
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct socket {
	struct sock *sk;
};
struct file;
struct task_struct {
	int tgid;
	struct task_struct *group_leader;
	char comm[16];
};
struct bpf_iter__task_file {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
	__u32 fd;
	struct file *file;
};
#pragma clang attribute pop

static __always_inline int mark(struct bpf_sock *sk)
{
	struct owner *o = bpf_sk_storage_get(&owners, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (o && !o->pid) {
		o->cgroup_id = bpf_get_current_cgroup_id();
		o->pid = bpf_get_current_pid_tgid() >> 32;
		bpf_get_current_comm(o->comm, sizeof(o->comm));
	}
	return 1;
}

SEC("cgroup/sock_create")
int sock_create(struct bpf_sock *ctx)
{
	return mark(ctx);
}

// The TCP sockets below an MPTCP socket are made by the kernel, which the hook above is not told of. A listener's is
// bound while its process calls bind(2), and the connections that fall back to TCP are its clones. Go programs listen
// with MPTCP by default.
SEC("cgroup/post_bind4")
int post_bind4(struct bpf_sock *ctx)
{
	return mark(ctx);
}

SEC("cgroup/post_bind6")
int post_bind6(struct bpf_sock *ctx)
{
	return mark(ctx);
}

SEC("iter/task_file")
int existing_sockets(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct socket *socket;
	struct owner *o;

	if (!task || !file || task->tgid == 0)
		return 0;
	socket = bpf_sock_from_file(file);
	if (!socket || !socket->sk)
		return 0;
	__u16 family = socket->sk->__sk_common.skc_family;
	if (family != AF_INET && family != AF_INET6)
		return 0;
	o = bpf_sk_storage_get(&owners, socket->sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (o && !o->pid) {
		o->cgroup_id = socket->sk->sk_cgrp_data.cgroup->kn->id;
		o->pid = task->tgid;
		bpf_probe_read_kernel_str(o->comm, sizeof(o->comm), task->group_leader->comm);
	}
	return 0;
}

// Run once by user space as a test run, to learn its own process id in the first pid namespace: inside a container
// getpid() says another.
__u32 own_pid = 0;

SEC("raw_tp")
int whoami(void *ctx)
{
	own_pid = bpf_get_current_pid_tgid() >> 32;
	return 0;
}
