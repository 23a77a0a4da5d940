// The two generations of the flow table.
#pragma once

#include <linux/bpf.h>
#include <linux/types.h>
#include <stdbool.h>
#include <bpf/bpf_helpers.h>

#include "flow.h"
#include "front.h"

// Two generations of one table: programs write to the current one; user space flips, waits until no program can still
// hold an entry of the other, and then reads and empties that one at its leisure. So no update ever meets a deletion.
// A generation is its front and, for the flows that find no place there, a hash table.
// Key: struct flow_key. Value: struct flow. Size: flow_table_size less front_entries each, allocated as used. Deleted by:
// user space only, after the flip.
struct flow_table {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 100000);
	__type(key, struct flow_key);
	__type(value, struct flow);
};

struct flow_table flows_0 SEC(".maps");
struct flow_table flows_1 SEC(".maps");

// The generation that programs write to: 0 or 1. Written by user space.
volatile __u32 generation = 0;
// Entries put into each generation; user space resets it when it has emptied one.
volatile __u32 entries_0 = 0;
volatile __u32 entries_1 = 0;
// Set when user space has been asked to flip; user space resets it. Two CPUs may both ask: that does no harm.
volatile __u32 pressed = 0;
// Number of entries at which a program asks user space to flip before its interval is over.
const volatile __u32 pressure_entries = 75000;

// Both branches name their map outright: a map pointer chosen at run time would keep the kernel from inlining the
// lookup. The empty asm keeps the compiler from merging the branches.
static __always_inline struct flow *back_lookup(__u32 gen, const struct flow_key *key)
{
	if (gen) {
		asm volatile("");
		return bpf_map_lookup_elem(&flows_1, key);
	}
	return bpf_map_lookup_elem(&flows_0, key);
}

static __always_inline long back_insert(__u32 gen, const struct flow_key *key, const struct flow *f)
{
	if (gen) {
		asm volatile("");
		return bpf_map_update_elem(&flows_1, key, f, BPF_NOEXIST);
	}
	return bpf_map_update_elem(&flows_0, key, f, BPF_NOEXIST);
}

// Looks a flow up whose key has this hash. Sets *where for flow_insert.
static __always_inline struct flow *flow_find(__u32 gen, __u32 hash, const struct flow_key *key, enum where *where)
{
	struct flow *f = NULL;

	*where = front_lookup(gen, hash, key, &f);
	if (*where == FRONT)
		return f;
	if (*where == NOWHERE && !front_refuses(gen))
		return NULL;
	return back_lookup(gen, key);
}

static __always_inline struct flow *flow_lookup(__u32 gen, const struct flow_key *key)
{
	enum where where;
	return flow_find(gen, flow_hash(key), key, &where);
}

// Puts a flow into the table that flow_find has not found. Returns false when it is not put there: then *other is the same
// flow, where another CPU was first, or NULL because the table is full.
static __always_inline bool flow_insert(__u32 gen, __u32 hash, enum where where, const struct flow_key *key,
					const struct flow *f, struct flow **other)
{
	if (where == NOWHERE) {
		enum where now = front_insert(gen, hash, key, f, other);
		if (now != BACK)
			return now == NOWHERE;
	}
	if (!back_insert(gen, key, f))
		return true;
	*other = back_lookup(gen, key);
	return false;
}
