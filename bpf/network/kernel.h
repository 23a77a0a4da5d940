// The parts of the kernel's own types that are read here. The loader relocates them against the running kernel's BTF.
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
struct sock_cgroup_data {
	struct cgroup *cgroup;
};
struct sock_common {
	__be16 skc_dport; // the peer's port
	unsigned short skc_family;
	volatile unsigned char skc_state;
};
struct sock {
	struct sock_common __sk_common;
	struct sock_cgroup_data sk_cgrp_data;
	__u16 sk_type;
	__u16 sk_protocol;
};
struct minmax_sample {
	__u32 v;
};
struct minmax {
	struct minmax_sample s[3];
};
struct tcp_sock {
	__u32 srtt_us;
	__u32 total_retrans;
	struct minmax rtt_min;
};
struct sk_buff {
	struct sock *sk;
	__be16 protocol;
	__u16 network_header; // offset from head, as are tail and end
	unsigned int tail;
	unsigned int end; // where struct skb_shared_info is
	unsigned char *head;
};
struct skb_shared_info {
	unsigned short gso_segs;
};
#pragma clang attribute pop

// Since Linux 6.2 a program may read the kernel's types where it runs: loads take the place of helper calls, each of which
// costs as much as all of the parsing. Both functions are compiled to a move.
extern void *bpf_cast_to_kern_ctx(void *obj) __weak __ksym;
extern void *bpf_rdonly_cast(const void *obj, __u32 btf_id) __weak __ksym;

static __always_inline bool can_read_kernel_types(void)
{
	return bpf_cast_to_kern_ctx && bpf_rdonly_cast;
}
