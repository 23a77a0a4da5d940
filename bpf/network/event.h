// The ring buffer: what user space must hear of at once, and the packets that found the flow table full.
#pragma once

#include <linux/bpf.h>
#include <linux/types.h>
#include <stdbool.h>
#include <bpf/bpf_helpers.h>

#include "flow.h"
#include "parse.h"

enum event_kind {
	EVENT_NEW = 1, // first packet of a flow in this generation, other than TCP
	EVENT_SYN = 2, // initial SYN
	EVENT_FIN = 3,
	EVENT_RST = 4,
	EVENT_OVERFLOW = 5, // the flow table took no new flow: count this packet in user space
	EVENT_PRESSURE = 6, // the flow table is nearly full: flip now; flow is not set
};

struct event {
	struct flow_key key;
	struct flow flow; // the packet alone
	__u8 kind;
	__u8 pad[7];
};

// Keeps the type in the BTF, from which the Go type is made.
const struct event *event_type __attribute__((unused));

// Size: ring_buffer_size. Emptied by user space.
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} events SEC(".maps");

// False: only overflow and pressure go to the ring buffer.
const volatile bool events_enabled = true;

static __always_inline bool event_emit(enum event_kind kind, const struct flow_key *key, const struct flow *f)
{
	struct event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e)
		return false;
	e->key = *key;
	e->flow = *f;
	e->kind = kind;
	__builtin_memset(e->pad, 0, sizeof(e->pad));
	bpf_ringbuf_submit(e, 0);
	return true;
}

static __always_inline void event_or_loss(enum event_kind kind, const struct flow_key *key, const struct flow *f)
{
	struct loss *l;
	if (event_emit(kind, key, f))
		return;
	l = local_loss();
	if (l)
		__sync_fetch_and_add(&l->events, 1);
}
