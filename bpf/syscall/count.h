// Exact counts: dense rows of counters, one a CPU, cgroup and ABI, and what the rows do not hold.
#pragma once

#include <linux/bpf.h>
#include <linux/types.h>
#include <stdbool.h>
#include <bpf/bpf_helpers.h>

#include "kernel.h"

// How many numbers a row counts. The largest that means anything is below 480 on every architecture.
#define ROW_NUMBERS 508

// A row belongs to one CPU until user space has read it. The tracepoint runs with preemption off, so that plain additions are
// enough.
struct row {
	__u64 key; // cgroup and ABI
	__u32 cpu;
	__u32 pad;
	__u32 calls[ROW_NUMBERS]; // by number
};

// Both generations of all rows: user space flips, waits until no program can still hold a row of the old one, and then reads and
// clears those of its rows that are in use. Key: generation * row_limit + n. Value: struct row. Size: 2 * row_limit, rounded
// to whole pages. Never deleted.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 2 * 4096);
	__type(key, __u32);
	__type(value, struct row);
} rows SEC(".maps");

// Rows of a generation, a multiple of what a page holds, and how many of them may be used. Those of old kernels are dealt out to
// the CPUs beforehand.
const volatile __u32 row_limit = 4096;
const volatile __u32 rows_usable = 4096;
const volatile __u32 rows_per_cpu = 512;

// Counts the flips, from 2: 0 is what a free slot has. Its lowest bit is the generation that programs write to. Written by user
// space.
volatile __u32 epoch = 2;
// Rows taken in each generation; user space resets it when it has cleared them.
volatile __u32 rows_used_0 = 0;
volatile __u32 rows_used_1 = 0;

// Where a CPU finds its rows. Entries of an earlier epoch are free: nobody has to clear them.
#define SLOTS 512
#define PROBES 16
#define NO_ROW 0xffffffff

struct slot {
	__u64 key;
	__u32 epoch;
	__u32 row;
};

struct cpu {
	struct slot last; // the task that was running will mostly go on
	struct slot slots[SLOTS];
	// Old kernels: rows that were taken in used_epoch.
	__u32 used_epoch;
	__u32 used;
};

// Key: 0. Value: struct cpu. Never deleted; user space has no part in it.
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct cpu);
} cpus SEC(".maps");

// Calls that no row counts: of other numbers, and of cgroups for which no row was free. Two generations. Key: struct call_key.
// Value: count. Size: overflow_size each, allocated as used. Deleted by: user space only, after the flip.
struct call_key {
	__u64 key;
	__u32 number;
	__u32 pad;
};

struct overflow_table {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 16384);
	__type(key, struct call_key);
	__type(value, __u64);
};

struct overflow_table overflow_0 SEC(".maps");
struct overflow_table overflow_1 SEC(".maps");

// Set when a generation of the tables has entries, so that user space need not look; it resets it.
volatile __u32 overflowed_0 = 0;
volatile __u32 overflowed_1 = 0;

static __always_inline void overflow_mark(__u32 generation)
{
	volatile __u32 *overflowed = generation ? &overflowed_1 : &overflowed_0;
	*overflowed = 1;
}

// What was seen and could be neither counted nor reported. Key: 0. Never deleted.
struct loss {
	__u64 calls;
	__u64 events;
	__u64 thinned;    // events left out because the ring buffer was nearly full
	__u64 unmeasured; // calls whose latency or error found no room
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct loss);
} losses SEC(".maps");

static __always_inline struct loss *local_loss(void)
{
	__u32 zero = 0;
	return bpf_map_lookup_elem(&losses, &zero);
}

static __always_inline __u32 row_take(struct cpu *cpu, __u32 e)
{
	__u32 n, generation = e & 1;

	if (modern) {
		volatile __u32 *used = generation ? &rows_used_1 : &rows_used_0;
		n = __sync_fetch_and_add(used, 1);
	} else {
		if (cpu->used_epoch != e) {
			cpu->used_epoch = e;
			cpu->used = 0;
		}
		if (cpu->used >= rows_per_cpu)
			return NO_ROW;
		n = bpf_get_smp_processor_id() * rows_per_cpu + cpu->used++;
	}
	return n < rows_usable ? generation * row_limit + n : NO_ROW;
}

// Makes cpu->last that of key: finds its slot, or takes a row and a slot for it. A slot without a row says that there was none.
static __noinline int row_find(struct cpu *cpu, __u64 key, __u32 e)
{
	__u32 home = key * 0x9e3779b97f4a7c15ULL >> 55;
	_Static_assert(SLOTS == 512, "home has 9 bits");

	cpu->last.key = key;
	cpu->last.epoch = e;
	cpu->last.row = NO_ROW;
	for (__u32 i = 0; i < PROBES; i++) {
		struct slot *s = &cpu->slots[(home + i) & (SLOTS - 1)];

		if (s->epoch == e && s->key != key)
			continue;
		if (s->epoch != e) {
			s->key = key;
			s->epoch = e;
			s->row = row_take(cpu, e);
			struct row *r = bpf_map_lookup_elem(&rows, &s->row);
			if (r) {
				r->key = key;
				r->cpu = bpf_get_smp_processor_id();
			}
		}
		cpu->last.row = s->row;
		return 0;
	}
	return 0;
}

// The row of a cgroup and ABI in the current generation, or NO_ROW.
static __always_inline __u32 row_of(struct cpu *cpu, __u64 key)
{
	__u32 e = epoch;

	if (cpu->last.key != key || cpu->last.epoch != e)
		row_find(cpu, key, e);
	return cpu->last.row;
}

// Both branches name their map outright: see bpf/network/flow.h.
static __always_inline __u64 *overflow_lookup(__u32 generation, const struct call_key *k)
{
	if (generation) {
		asm volatile("");
		return bpf_map_lookup_elem(&overflow_1, k);
	}
	return bpf_map_lookup_elem(&overflow_0, k);
}

static __always_inline long overflow_insert(__u32 generation, const struct call_key *k, const __u64 *n)
{
	if (generation) {
		asm volatile("");
		return bpf_map_update_elem(&overflow_1, k, n, BPF_NOEXIST);
	}
	return bpf_map_update_elem(&overflow_0, k, n, BPF_NOEXIST);
}

// Adds calls to the table of what no row counts and returns how many there were before, more or less: CPUs may meet here. One
// that is lost is not taken for the first.
static __noinline __u32 overflow_add(__u64 key, __u32 number, __u64 calls)
{
	struct call_key k = {.key = key, .number = number};
	__u32 generation = epoch & 1;

	__u64 *n = overflow_lookup(generation, &k);
	if (!n) {
		if (!overflow_insert(generation, &k, &calls)) {
			overflow_mark(generation);
			return 0;
		}
		// Another CPU may have been first with the same call.
		n = overflow_lookup(generation, &k);
	}
	if (n) {
		__u32 before = *n;
		__sync_fetch_and_add(n, calls);
		return before ?: 1;
	}
	struct loss *l = local_loss();
	if (l)
		__sync_fetch_and_add(&l->calls, calls);
	return 1;
}
