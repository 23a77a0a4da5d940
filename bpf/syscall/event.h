// The ring buffer: single calls with their parameters.
#pragma once

#include <linux/bpf.h>
#include <linux/types.h>
#include <stdbool.h>
#include <bpf/bpf_helpers.h>

#include "count.h"
#include "kernel.h"

#define ARGUMENTS 6
#define MAX_TEXT 128

// As TextState in the engine.
enum text_state {
	TEXT_NONE = 0,
	TEXT_WHOLE = 1,
	TEXT_CUT = 2,
	TEXT_UNREADABLE = 3,
};

struct event {
	__u64 ns;  // CLOCK_MONOTONIC
	__u64 key; // cgroup and ABI
	__u64 args[ARGUMENTS];
	__u32 pid; // both in the first pid namespace
	__u32 tid;
	__s32 number;
	__u32 sampling; // it stands for so many calls
	__u8 comm[16];
};

struct text_event {
	struct event event;
	__u32 length;
	__u32 state; // enum text_state
	__u8 text[MAX_TEXT];
};

// Keep the types in the BTF, from which the Go types are made.
const struct event *event_type __attribute__((unused));
const struct text_event *text_event_type __attribute__((unused));

// Size: ring_buffer_size. Emptied by user space.
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 19);
} events SEC(".maps");

const volatile bool events_enabled = true;
// Which events there are of a call: bits 0 to 23 sampling (0: none, 1: all, N: one in N), 24 to 26 the parameter to read,
// counted from 1, 27 that it is bytes, whose number is the next parameter, 28 never to thin out. By ABI and number; the last one of
// an ABI is for numbers that no row counts.
const volatile __u32 policies[ABIS * (ROW_NUMBERS + 1)] = {};
#define POLICY_SAMPLING(p) ((p) & 0xffffff)
#define POLICY_TEXT(p) ((p) >> 24 & 7)
#define POLICY_BYTES (1 << 27)
#define POLICY_ALWAYS (1 << 28)

// Process id of the collector in the first pid namespace, of whose calls there are no events. 0: nobody is.
const volatile __u32 self_pid = 0;
// When more of the ring buffer than this is unread, only one in THINNING of the events goes in.
const volatile __u32 thinning_bytes = (1 << 19) / 5 * 4;
#define THINNING 10
// The reader is woken only when more than this is unread: it looks by itself often enough.
const volatile __u32 wakeup_bytes = (1 << 19) / 8;

static __always_inline __u32 policy_of(struct caller c)
{
	__u32 n = c.number < ROW_NUMBERS ? c.number : ROW_NUMBERS;
	__u64 i = ((c.key & 7) - ABI_FIRST) * (ROW_NUMBERS + 1) + n;

	// The compiler would check another register than it indexes with.
	asm volatile("" : "+r"(i));
	return i < ABIS * (ROW_NUMBERS + 1) ? policies[i] : 0;
}

static __always_inline bool read_args(__u64 *args, __u64 key, const void *regs)
{
#if defined(__TARGET_ARCH_x86)
	// struct pt_regs as far as it is needed: r15 r14 r13 r12 bp bx r11 r10 r9 r8 ax cx dx si di.
	__u64 r[15];
	if (bpf_probe_read_kernel(r, sizeof(r), regs))
		return false;
	if ((key & 7) == ABI_I386) {
		args[0] = (__u32)r[5];
		args[1] = (__u32)r[11];
		args[2] = (__u32)r[12];
		args[3] = (__u32)r[13];
		args[4] = (__u32)r[14];
		args[5] = (__u32)r[4];
		return true;
	}
	args[0] = r[14];
	args[1] = r[13];
	args[2] = r[12];
	args[3] = r[7];
	args[4] = r[9];
	args[5] = r[8];
#else
	if (bpf_probe_read_kernel(args, ARGUMENTS * sizeof(*args), regs)) // x0 to x5 come first
		return false;
	if ((key & 7) == ABI_ARM) {
		for (int i = 0; i < ARGUMENTS; i++)
			args[i] = (__u32)args[i];
	}
#endif
	return true;
}

static __always_inline void event_fill(struct event *e, struct caller c, const __u64 *args, __u32 sampling)
{
	__u64 id = bpf_get_current_pid_tgid();

	e->ns = bpf_ktime_get_ns();
	e->key = c.key;
	__builtin_memcpy(e->args, args, sizeof(e->args));
	e->pid = id >> 32;
	e->tid = id;
	e->number = c.number;
	e->sampling = sampling;
	bpf_get_current_comm(e->comm, sizeof(e->comm));
}

static __always_inline __u64 argument(const __u64 *args, __u32 n)
{
	// Not an index: the compiler would make it one of a stack slot that the verifier does not know.
	switch (n) {
	case 1:
		return args[0];
	case 2:
		return args[1];
	case 3:
		return args[2];
	case 4:
		return args[3];
	case 5:
		return args[4];
	case 6:
		return args[5];
	}
	return 0;
}

static __always_inline void read_text(struct text_event *t, const void *from)
{
	char next;

	t->length = 0;
	t->state = TEXT_UNREADABLE;
	long n = bpf_probe_read_user_str(t->text, MAX_TEXT, from);
	if (n < 0)
		return;
	t->length = n ? n - 1 : 0; // Linux 6.1 says 0 for an empty string, later ones count its NUL
	// Where the NUL is, a cut string goes on.
	t->state = n == MAX_TEXT && !bpf_probe_read_user(&next, 1, from + n - 1) && next ? TEXT_CUT : TEXT_WHOLE;
}

static __always_inline void read_bytes(struct text_event *t, const void *from, __u64 n)
{
	t->length = 0;
	t->state = n ? TEXT_UNREADABLE : TEXT_WHOLE;
	if (!n)
		return;
	// The verifier of Linux 6.1 wants to see 1 to MAX_TEXT of 64 bits.
	__u64 last = n - 1;
	asm volatile("" : "+r"(last));
	if (last >= MAX_TEXT)
		last = MAX_TEXT - 1;
	if (bpf_probe_read_user(t->text, last + 1, from))
		return;
	t->length = last + 1;
	t->state = n > MAX_TEXT ? TEXT_CUT : TEXT_WHOLE;
}

static __always_inline void event_lost(void)
{
	struct loss *l = local_loss();
	if (l)
		__sync_fetch_and_add(&l->events, 1);
}

// Tells of a call unless the ring buffer is nearly full. Apart, for it is the slow path.
static __noinline int event_emit(const void *regs, __u64 key, __u32 number, __u32 policy, __u32 sampling)
{
	struct caller c = {.key = key, .number = number};
	__u64 args[ARGUMENTS], unread;

	if (self_pid && bpf_get_current_pid_tgid() >> 32 == self_pid)
		return 0;
	unread = bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA);
	if (unread > thinning_bytes && !(policy & POLICY_ALWAYS)) {
		if (bpf_get_prandom_u32() % THINNING) {
			struct loss *l = local_loss();
			if (l)
				__sync_fetch_and_add(&l->thinned, 1);
			return 0;
		}
		sampling *= THINNING;
	}
	if (!read_args(args, key, regs))
		__builtin_memset(args, 0, sizeof(args));
	__u64 flags = unread > wakeup_bytes ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP;
	__u32 which = POLICY_TEXT(policy);
	if (!which) {
		struct event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
		if (!e) {
			event_lost();
			return 0;
		}
		event_fill(e, c, args, sampling);
		bpf_ringbuf_submit(e, flags);
		return 0;
	}
	struct text_event *t = bpf_ringbuf_reserve(&events, sizeof(*t), 0);
	if (!t) {
		event_lost();
		return 0;
	}
	event_fill(&t->event, c, args, sampling);
	const void *from = (const void *)argument(args, which);
	if (policy & POLICY_BYTES)
		read_bytes(t, from, argument(args, which + 1));
	else
		read_text(t, from);
	bpf_ringbuf_submit(t, flags);
	return 0;
}

// before is how many such calls this CPU has counted in this interval.
static __always_inline void event_consider(const void *regs, struct caller c, __u32 before)
{
	__u32 policy = policy_of(c), sampling = POLICY_SAMPLING(policy);

	if (!sampling)
		return;
	if (before == 0)
		event_emit(regs, c.key, c.number, policy, 1);
	else if (sampling == 1 || before % sampling == 0)
		event_emit(regs, c.key, c.number, policy, sampling);
}
