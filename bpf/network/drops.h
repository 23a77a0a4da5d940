// Dropped packets: how many, why, of which flow and whose socket.
#pragma once

#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_helpers.h>

struct drop_key {
	__u8 saddr[16]; // IPv4 as ::ffff:a.b.c.d
	__u8 daddr[16];
	__u64 cgroup_id; // of the socket that sent it or was to receive it; 0 when none is known
	__u32 reason;    // enum skb_drop_reason of the running kernel
	__u16 sport;     // host byte order; 0 where the transport has no ports or they could not be read
	__u16 dport;
	__u8 ip; // 4, 6, or 0 where no IP header could be read: then addresses, ports and transport are 0
	__u8 transport;
	__u8 pad[6]; // always 0: it is part of the hashed key
};

// Two generations, as of the flow table; see flow.h. Preallocated: this program runs wherever the kernel frees a packet,
// with locks held, and is no place to allocate.
// Key: struct drop_key. Value: packets. Size: 4096 each. Deleted by: user space only, after the flip.
struct drop_table {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct drop_key);
	__type(value, __u64);
};

struct drop_table drops_0 SEC(".maps");
struct drop_table drops_1 SEC(".maps");

// The generation that the program writes to: 0 or 1. Written by user space.
volatile __u32 generation = 0;

// Drops that found their generation full. Key: reason. Value: packets since the start. Size: more than there are reasons,
// so that it always has room. Never deleted.
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, __u64);
} undetailed SEC(".maps");

static __always_inline void count_undetailed(__u32 reason, __u64 packets)
{
	__u64 *sum = bpf_map_lookup_elem(&undetailed, &reason);
	if (!sum) {
		if (!bpf_map_update_elem(&undetailed, &reason, &packets, BPF_NOEXIST))
			return;
		sum = bpf_map_lookup_elem(&undetailed, &reason);
	}
	if (sum)
		__sync_fetch_and_add(sum, packets);
}

static __always_inline void count_drop(const struct drop_key *key, __u64 packets)
{
	void *table = generation & 1 ? (void *)&drops_1 : (void *)&drops_0;
	__u64 *sum = bpf_map_lookup_elem(table, key);
	if (!sum) {
		if (!bpf_map_update_elem(table, key, &packets, BPF_NOEXIST))
			return;
		// Another CPU may have been first.
		sum = bpf_map_lookup_elem(table, key);
	}
	if (sum)
		__sync_fetch_and_add(sum, packets);
	else
		count_undetailed(key->reason, packets);
}
