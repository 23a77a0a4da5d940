// How long calls take and what they return, exact by cgroup, ABI and number, as the counts are.
#pragma once

#include <linux/bpf.h>
#include <linux/types.h>
#include <stdbool.h>
#include <bpf/bpf_helpers.h>

#include "../buckets.h"
#include "count.h"
#include "kernel.h"

#define BUCKETS 28
#define MAX_ERRNO 4095

const volatile bool latency_enabled = false;

// A call that has been entered. A cache line, for threads on other CPUs have theirs beside it.
struct start {
	// Where the kernel keeps the registers of its thread's calls: at the top of the thread's stack, of all of them and of no other
	// thread's. 0 in storage, and of who has no thread yet.
	__u64 stack;
	__u64 ns; // 0: no call is under way
	__u64 key;
	__u32 number;
	__u32 pad[9];
};

// A thread's place, by a hash of its stack, or the one beside it: the first two there have them until they exit. Those that are killed
// keep theirs for who gets their stack next: none has a call under way, for a killed thread returns from its call first. Key: 0 to
// starts_mask. Value: struct start, which its thread alone writes to. Size: starts_mask + 1; 1 when latency is off. Never deleted.
#define STARTS 16384
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, STARTS);
	__type(key, __u32);
	__type(value, struct start);
} starts SEC(".maps");

const volatile __u32 starts_mask = STARTS - 1; // tests make it smaller

// The calls of threads whose places are others'. Key: task. Value: struct start. Size: one a thread. Deleted by: the kernel, with
// the task.
struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct start);
} crowded SEC(".maps");

// What is measured of one call of one row: it belongs to the row's CPU. Two cache lines.
struct cell {
	__u64 ns; // sum
	__u32 errno; // the first error, which is mostly the only one, and how often; the others are in the table of errors
	__u32 errors;
	__u32 buckets[BUCKETS]; // at most 256 << i ns
};

// The cells of a row's calls, 0 for none yet. Rows are those of counts.
#define NO_CELL 0xffff // there was none
struct row_cells {
	__u16 cells[ROW_NUMBERS + 4];
};

// Key: as in rows. Value: struct row_cells. Size: as rows; 1 when latency is off. Cleared by user space.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 2 * 4096);
	__type(key, __u32);
	__type(value, struct row_cells);
} cells_of_rows SEC(".maps");

// Key: generation * cell_limit + n. Value: struct cell. Size: 2 * cell_limit, rounded to whole pages; 1 when latency is off.
// Cleared by user space. The first of each generation is not used.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 2 * 16384);
	__type(key, __u32);
	__type(value, struct cell);
} cells SEC(".maps");

const volatile __u32 cell_limit = 16384;
const volatile __u32 cells_usable = 16384;
volatile __u32 cells_used_0 = 1;
volatile __u32 cells_used_1 = 1;

// What has no cell. Two generations. Key: struct call_key. Value: struct cell, added to atomically. Size: overflow_size each,
// allocated as used; 1 when latency is off. Deleted by: user space only, after the flip.
struct latency_table {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 16384);
	__type(key, struct call_key);
	__type(value, struct cell);
};

struct latency_table latency_0 SEC(".maps");
struct latency_table latency_1 SEC(".maps");

// Errors that are not in a cell. As overflow_0 in all else.
struct error_key {
	__u64 key;
	__u32 number;
	__u32 errno;
};

struct error_table {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 16384);
	__type(key, struct error_key);
	__type(value, __u64);
};

struct error_table errors_0 SEC(".maps");
struct error_table errors_1 SEC(".maps");

static __always_inline void lose_measure(void)
{
	struct loss *l = local_loss();
	if (l)
		__sync_fetch_and_add(&l->unmeasured, 1);
}

// The first place of a thread (0), or the second (1).
static __always_inline struct start *place_of(__u64 stack, __u32 second)
{
	__u32 i = (stack * 0x9e3779b97f4a7c15ULL >> 50 ^ second) & starts_mask;
	_Static_assert(STARTS == 1 << 14, "a place has 14 bits");

	return bpf_map_lookup_elem(&starts, &i);
}

// The place that a thread has, if any.
static __always_inline struct start *own_place(__u64 stack)
{
	struct start *s = place_of(stack, 0);

	if (s && s->stack == stack)
		return s;
	s = place_of(stack, 1);
	return s && s->stack == stack ? s : NULL;
}

// Takes a place for a thread that has none.
static __always_inline struct start *take_place(__u64 stack)
{
	for (__u32 second = 0; second < 2; second++) {
		struct start *s = place_of(stack, second);

		if (s && !s->stack && !__sync_val_compare_and_swap(&s->stack, 0, stack))
			return s;
	}
	return NULL;
}

// exit and exit_group: sys_exit does not see them.
static __always_inline bool never_returns(struct caller c)
{
	switch (c.key & 7) {
	case ABI_X86_64:
	case ABI_X32:
		return c.number == 60 || c.number == 231;
	case ABI_I386:
		return c.number == 1 || c.number == 252;
	case ABI_ARM64:
		return c.number == 93 || c.number == 94;
	case ABI_ARM:
		return c.number == 1 || c.number == 248;
	}
	return false;
}

// Only programs of kernels that let them keep task storage get here: they are modern.
static __always_inline void latency_begin(struct task_struct *task, __u64 stack, struct caller c)
{
	struct start *s = own_place(stack);

	if (never_returns(c)) {
		if (s)
			s->stack = 0;
		return;
	}
	if (!s)
		s = take_place(stack);
	if (!s) {
		s = bpf_task_storage_get(&crowded, task, NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);
		if (!s) {
			lose_measure();
			return;
		}
	}
	s->key = c.key;
	s->number = c.number;
	s->ns = bpf_ktime_get_ns();
}

static __always_inline void *error_lookup(__u32 generation, const struct error_key *k)
{
	if (generation) {
		asm volatile("");
		return bpf_map_lookup_elem(&errors_1, k);
	}
	return bpf_map_lookup_elem(&errors_0, k);
}

static __always_inline long error_insert(__u32 generation, const struct error_key *k, const __u64 *n)
{
	if (generation) {
		asm volatile("");
		return bpf_map_update_elem(&errors_1, k, n, BPF_NOEXIST);
	}
	return bpf_map_update_elem(&errors_0, k, n, BPF_NOEXIST);
}

static __noinline int error_add(__u64 key, __u32 number, __u32 errno)
{
	struct error_key k = {.key = key, .number = number, .errno = errno};
	__u32 generation = epoch & 1;
	__u64 one = 1;

	__u64 *n = error_lookup(generation, &k);
	if (!n) {
		if (!error_insert(generation, &k, &one)) {
			overflow_mark(generation);
			return 0;
		}
		n = error_lookup(generation, &k);
	}
	if (n)
		__sync_fetch_and_add(n, 1);
	else
		lose_measure();
	return 0;
}

static __always_inline struct cell *latency_lookup(__u32 generation, const struct call_key *k)
{
	if (generation) {
		asm volatile("");
		return bpf_map_lookup_elem(&latency_1, k);
	}
	return bpf_map_lookup_elem(&latency_0, k);
}

static __always_inline long latency_insert(__u32 generation, const struct call_key *k, const struct cell *c)
{
	if (generation) {
		asm volatile("");
		return bpf_map_update_elem(&latency_1, k, c, BPF_NOEXIST);
	}
	return bpf_map_update_elem(&latency_0, k, c, BPF_NOEXIST);
}

// Measures a call that has no cell.
static __noinline int latency_overflow(__u64 key, __u32 number, __u64 ns, __u32 errno)
{
	struct call_key k = {.key = key, .number = number};
	struct cell none = {};
	__u32 generation = epoch & 1, bucket = bucket_of(ns, 8, BUCKETS);

	struct cell *c = latency_lookup(generation, &k);
	if (!c) {
		if (!latency_insert(generation, &k, &none))
			overflow_mark(generation);
		c = latency_lookup(generation, &k);
	}
	if (!c || bucket >= BUCKETS) {
		lose_measure();
		return 0;
	}
	__sync_fetch_and_add(&c->ns, ns);
	__sync_fetch_and_add(&c->buckets[bucket], 1);
	if (errno)
		error_add(key, number, errno);
	return 0;
}

// Takes a cell for a call of a row.
static __noinline __u32 cell_take(__u32 row)
{
	volatile __u32 *used = row >= row_limit ? &cells_used_1 : &cells_used_0;
	__u32 n = __sync_fetch_and_add(used, 1);

	return n < cells_usable ? n : NO_CELL;
}

static __always_inline void latency_end(__u64 stack, long ret)
{
	__u64 now = bpf_ktime_get_ns(); // first: it waits for all loads before it
	struct start *s = own_place(stack);
	__u32 zero = 0, errno = 0;

	if (!s)
		s = bpf_task_storage_get(&crowded, bpf_get_current_task_btf(), NULL, 0);
	if (!s || !s->ns)
		return; // under way when the programs were attached, or a new thread's return from the call that made it
	__u64 key = s->key, ns = now - s->ns;
	__u32 number = s->number;
	s->ns = 0;
	if ((key & 7) == ABI_I386 || (key & 7) == ABI_ARM)
		ret = (__s32)ret;
	if (ret < 0 && ret >= -MAX_ERRNO)
		errno = -ret;

	struct cpu *cpu = bpf_map_lookup_elem(&cpus, &zero);
	if (!cpu)
		return;
	__u32 n = row_of(cpu, key);
	struct row_cells *of_row = bpf_map_lookup_elem(&cells_of_rows, &n);
	if (!of_row || number >= ROW_NUMBERS) {
		latency_overflow(key, number, ns, errno);
		return;
	}
	__u32 i = of_row->cells[number];
	if (!i) {
		i = cell_take(n);
		of_row->cells[number] = i;
	}
	if (i == NO_CELL) {
		latency_overflow(key, number, ns, errno);
		return;
	}
	if (n >= row_limit)
		i += cell_limit;
	struct cell *c = bpf_map_lookup_elem(&cells, &i);
	__u32 bucket = bucket_of(ns, 8, BUCKETS);
	if (!c || bucket >= BUCKETS)
		return;
	c->ns += ns;
	c->buckets[bucket]++;
	if (!errno)
		return;
	if (!c->errors)
		c->errno = errno;
	if (c->errno == errno)
		c->errors++;
	else
		error_add(key, number, errno);
}
