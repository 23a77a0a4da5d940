// Which process made a socket, and in which cgroup.
#pragma once

#include <linux/bpf.h>
#include <linux/types.h>
#include <stdbool.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

struct owner {
	__u64 cgroup_id; // cgroup v2; 0 when unknown
	__u32 pid;       // thread group id in the first pid namespace
	char comm[16];
	__u8 pad[4];
};

// Key: socket. Value: struct owner. Size: one a socket. Deleted by: the kernel, with the socket. BPF_F_CLONE gives an
// accepted socket the owner of its listener.
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	__type(key, int);
	__type(value, struct owner);
} owners SEC(".maps");

static __always_inline struct owner *owner_of(struct bpf_sock *sk)
{
	if (!sk)
		return NULL;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return NULL;
	struct owner *o = bpf_sk_storage_get(&owners, sk, NULL, 0);
	if (o || !bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_skc_to_mptcp_sock))
		return o;
	// A TCP socket below an MPTCP socket (helper: Linux 5.19): the latter is the one that a process made.
	struct mptcp_sock *m = bpf_skc_to_mptcp_sock(sk);
	if (!m)
		return NULL;
	o = bpf_sk_storage_get(&owners, m, NULL, 0);
	if (!o)
		return NULL;
	// Connections that fall back to TCP are clones of a listener below: they shall inherit.
	struct owner *copy = bpf_sk_storage_get(&owners, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (copy)
		*copy = *o;
	return o;
}
