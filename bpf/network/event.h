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
	EVENT_PRESSURE = 6, // the flow table is nearly full: flip now
	EVENT_DNS = 7,      // a struct dns_event
	EVENT_PACKET = 8,   // one of the first packets of a flow, or a sampled one
};

struct event {
	struct flow_key key;
	struct flow flow; // the packet alone, and who its flow belongs to
	__u32 kind;
	__u32 seq; // TCP
};

#define DNS_SHORT 192
#define DNS_LONG 1232 // what RFC 9715 and DNS flag day 2020 keep UDP answers below

struct dns_event {
	struct event event;
	__u32 length; // of the transport payload; what is here of it may be less
	__u32 captured;
	__u8 payload[DNS_LONG];
};

// Keep the types in the BTF, from which the Go types are made.
const struct event *event_type __attribute__((unused));
const struct dns_event *dns_event_type __attribute__((unused));
const enum event_kind *event_kind_type __attribute__((unused));
const enum seen *seen_type __attribute__((unused));

// Size: ring_buffer_size. Emptied by user space.
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} events SEC(".maps");

// False: only overflow and pressure go to the ring buffer, and DNS.
const volatile bool events_enabled = true;
// The first so many packets of a flow are events, in each generation; 0 and 1 add nothing to the kinds above.
const volatile __u32 first_packets = 0;
// One of so many further packets is an event; 0: none.
const volatile __u32 sampling = 0;
// When more of the ring buffer than this is unread, only one in THINNING of the sampled events goes in.
const volatile __u32 thinning_bytes = (1 << 20) / 5 * 4;
#define THINNING 10
// When more than this is unread, new flows other than TCP are no events: flood and scan make them by the hundred thousand.
const volatile __u32 spare_bytes = (1 << 20) / 2;

// Ports of DNS servers, 0 for none.
#define MAX_DNS_PORTS 4
const volatile __u16 dns_ports[MAX_DNS_PORTS] = {};

static __always_inline void event_fill(struct event *e, enum event_kind kind, const struct flow_key *key,
				       const struct flow *who, const struct packet *p, __u64 now)
{
	e->key = *key;
	__builtin_memset(&e->flow, 0, sizeof(e->flow));
	e->flow.bytes = p->bytes;
	e->flow.packets = p->packets;
	e->flow.first_ns = now;
	e->flow.last_ns = now;
	e->flow.cgroup_id = who->cgroup_id;
	e->flow.pid = who->pid;
	__builtin_memcpy(e->flow.comm, who->comm, sizeof(e->flow.comm));
	e->flow.tcp_flags = p->tcp_flags;
	e->flow.connections = is_initial_syn(p);
	e->flow.seen = who->seen;
	e->flow.client_isn = who->client_isn;
	e->flow.server_isn = who->server_isn;
	e->kind = kind;
	e->seq = p->seq;
}

static __always_inline bool event_emit(enum event_kind kind, const struct flow_key *key, const struct flow *who,
				       const struct packet *p, __u64 now)
{
	struct event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e)
		return false;
	event_fill(e, kind, key, who, p, now);
	bpf_ringbuf_submit(e, 0);
	return true;
}

// Whether there is room for an event that counts do not depend on: half of the ring buffer is kept for packets that find
// the flow table full.
static __always_inline bool event_room(void)
{
	return bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA) <= spare_bytes;
}

static __always_inline void event_lost(void)
{
	struct loss *l = local_loss();
	if (l)
		__sync_fetch_and_add(&l->events, 1);
}

// Whether a packet of a known flow is an event of its own. count is the flow's packets in this generation.
static __always_inline bool event_sampled(__u64 count)
{
	if (count <= first_packets)
		return true;
	if (!sampling || bpf_get_prandom_u32() % sampling)
		return false;
	if (bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA) <= thinning_bytes || !(bpf_get_prandom_u32() % THINNING))
		return true;
	struct loss *l = local_loss();
	if (l)
		__sync_fetch_and_add(&l->thinned, 1);
	return false;
}

static __always_inline bool is_dns(const struct flow_key *key)
{
	for (int i = 0; i < MAX_DNS_PORTS; i++) {
		if (dns_ports[i] && (key->sport == dns_ports[i] || key->dport == dns_ports[i]))
			return key->transport == IPPROTO_UDP || key->transport == IPPROTO_TCP;
	}
	return false;
}

// Reads payload, which may lie in pages: what a process sends by TCP does. Only bpf_skb_load_bytes reads those, at offsets
// from the linear data, which begins at the network header or at a link layer's.
static __always_inline long load_payload(struct __sk_buff *skb, __u32 off, void *to, __u64 len)
{
	__u64 network, data;

	if (!bpf_skb_load_bytes_relative(skb, off, to, len, BPF_HDR_START_NET))
		return 0;
	if (bpf_skb_load_bytes_relative(skb, 0, &network, sizeof(network), BPF_HDR_START_NET) ||
	    bpf_skb_load_bytes(skb, 0, &data, sizeof(data)))
		return -1;
	return bpf_skb_load_bytes(skb, network == data ? off : off + ETH_HLEN, to, len);
}

// room is a constant: the ring buffer takes no other size.
static __always_inline void dns_emit(struct __sk_buff *skb, const __u32 room, const struct flow_key *key,
				     const struct flow *who, const struct packet *p, __u64 now)
{
	struct dns_event *e = bpf_ringbuf_reserve(&events, __builtin_offsetof(struct dns_event, payload) + room, 0);
	if (!e) {
		event_lost();
		return;
	}
	event_fill(&e->event, EVENT_DNS, key, who, p, now);
	e->length = p->payload_len;
	// That 1 to room bytes are read must be seen by the verifier, and so not be known to the compiler. Linux 6.1 learns
	// no bound from a comparison with 0, and none of a copy of 32 bits.
	__u64 last = p->payload_len - 1;
	asm volatile("" : "+r"(last));
	if (last >= room)
		last = room - 1;
	if (load_payload(skb, p->payload, e->payload, last + 1)) {
		bpf_ringbuf_discard(e, 0);
		event_lost();
		return;
	}
	e->captured = last + 1;
	bpf_ringbuf_submit(e, 0);
}

static __always_inline void dns_event(struct __sk_buff *skb, const struct flow_key *key, const struct flow *who,
				      const struct packet *p)
{
	if (!p->payload_len)
		return;
	if (p->payload_len <= DNS_SHORT)
		dns_emit(skb, DNS_SHORT, key, who, p, bpf_ktime_get_ns());
	else
		dns_emit(skb, DNS_LONG, key, who, p, bpf_ktime_get_ns());
}
