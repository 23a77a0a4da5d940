// Exact counts of calls and bytes by cgroup and kind, in two generations.
#pragma once

#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_helpers.h>

#include "../buckets.h"

// What calls are counted as: internal/cuda of the gpu receiver has the same numbers.
struct count_key {
	__u64 cgroup;
	__u32 kind;
	__u32 pad;
};

struct count {
	__u64 calls;
	__u64 bytes;
};

// Uprobes run with preemption on: two threads may meet in a counter even on one CPU, so that all additions are atomic. They cost
// next to nothing beside the trap that a uprobe is. Key: struct count_key. Value: struct count. Size: entries each, allocated as
// used. Deleted by: user space only, when the generation is not current.
struct count_table {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 16384);
	__type(key, struct count_key);
	__type(value, struct count);
};

struct count_table counts_0 SEC(".maps");
struct count_table counts_1 SEC(".maps");

// How long synchronisations took: bucket i is of those of at most 1024 << i ns. As counts_0 in all else.
#define BUCKETS 24
struct wait {
	__u64 ns; // sum
	__u64 buckets[BUCKETS];
};

struct wait_table {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 4096);
	__type(key, struct count_key);
	__type(value, struct wait);
};

struct wait_table waits_0 SEC(".maps");
struct wait_table waits_1 SEC(".maps");

// The lowest bit is the generation that programs write to. Written by user space.
volatile __u32 epoch = 0;

// What was seen and could not be counted. Key: 0. Value: struct loss, added to atomically. Never deleted.
struct loss {
	__u64 calls;      // found the table full
	__u64 unmeasured; // waits that found the table full, or whose beginning was no longer known
	__u64 unreadable; // copies whose bytes the caller's memory did not give
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct loss);
} losses SEC(".maps");

static __always_inline struct loss *loss(void)
{
	__u32 zero = 0;
	return bpf_map_lookup_elem(&losses, &zero);
}

// Both branches name their map outright: see bpf/network/flow.h.
static __always_inline struct count *count_lookup(__u32 generation, const struct count_key *k)
{
	if (generation) {
		asm volatile("");
		return bpf_map_lookup_elem(&counts_1, k);
	}
	return bpf_map_lookup_elem(&counts_0, k);
}

static __always_inline long count_insert(__u32 generation, const struct count_key *k, const struct count *c)
{
	if (generation) {
		asm volatile("");
		return bpf_map_update_elem(&counts_1, k, c, BPF_NOEXIST);
	}
	return bpf_map_update_elem(&counts_0, k, c, BPF_NOEXIST);
}

static __always_inline void count_add(__u32 kind, __u64 bytes)
{
	struct count_key k = {.cgroup = bpf_get_current_cgroup_id(), .kind = kind};
	__u32 generation = epoch & 1;

	struct count *c = count_lookup(generation, &k);
	if (!c) {
		struct count first = {.calls = 1, .bytes = bytes};
		if (!count_insert(generation, &k, &first))
			return;
		// Another thread may have been first with the same kind.
		c = count_lookup(generation, &k);
	}
	if (c) {
		__sync_fetch_and_add(&c->calls, 1);
		if (bytes)
			__sync_fetch_and_add(&c->bytes, bytes);
		return;
	}
	struct loss *l = loss();
	if (l)
		__sync_fetch_and_add(&l->calls, 1);
}

static __always_inline struct wait *wait_lookup(__u32 generation, const struct count_key *k)
{
	if (generation) {
		asm volatile("");
		return bpf_map_lookup_elem(&waits_1, k);
	}
	return bpf_map_lookup_elem(&waits_0, k);
}

static __always_inline long wait_insert(__u32 generation, const struct count_key *k, const struct wait *w)
{
	if (generation) {
		asm volatile("");
		return bpf_map_update_elem(&waits_1, k, w, BPF_NOEXIST);
	}
	return bpf_map_update_elem(&waits_0, k, w, BPF_NOEXIST);
}

static __always_inline void unmeasured(void)
{
	struct loss *l = loss();
	if (l)
		__sync_fetch_and_add(&l->unmeasured, 1);
}

static __noinline int wait_add(__u64 cgroup, __u32 kind, __u64 ns)
{
	struct count_key k = {.cgroup = cgroup, .kind = kind};
	struct wait none = {};
	__u32 generation = epoch & 1, bucket = bucket_of(ns, 10, BUCKETS);

	struct wait *w = wait_lookup(generation, &k);
	if (!w) {
		wait_insert(generation, &k, &none);
		w = wait_lookup(generation, &k);
	}
	if (!w || bucket >= BUCKETS) {
		unmeasured();
		return 0;
	}
	__sync_fetch_and_add(&w->ns, ns);
	__sync_fetch_and_add(&w->buckets[bucket], 1);
	return 0;
}
