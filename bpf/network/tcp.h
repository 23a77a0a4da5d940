// What TCP segments and sockets tell of their connection: who opened it, its identity, its health.
#pragma once

#include <linux/bpf.h>
#include <linux/types.h>
#include <stdbool.h>
#include <bpf/bpf_helpers.h>

#include "event.h"
#include "flow.h"
#include "kernel.h"
#include "parse.h"
#include "table.h"

#define SOCK_STREAM 1

static __always_inline struct flow_key flow_reverse(const struct flow_key *key)
{
	struct flow_key r = *key;
	__builtin_memcpy(r.saddr, key->daddr, 16);
	__builtin_memcpy(r.daddr, key->saddr, 16);
	r.sport = key->dport;
	r.dport = key->sport;
	r.direction = INGRESS + EGRESS - key->direction;
	return r;
}

// Round-trip times and retransmits as the sending socket has them; a retransmitted segment counts itself already.
static __always_inline void tcp_health(struct __sk_buff *skb, enum place at, struct flow *f)
{
	struct bpf_tcp_sock *tcp;
	struct bpf_sock *bpf_sk;

	// At a socket the packet's is always a full one; at an interface it may be a request's or in TIME_WAIT.
	if (at == AT_SOCKET && can_read_kernel_types()) {
		struct sock *sk = ((struct sk_buff *)bpf_cast_to_kern_ctx(skb))->sk;
		if (!sk || sk->sk_type != SOCK_STREAM || sk->sk_protocol != IPPROTO_TCP)
			return;
		struct tcp_sock *tp = bpf_rdonly_cast(sk, bpf_core_type_id_kernel(struct tcp_sock));
		f->srtt_us = tp->srtt_us >> 3; // the kernel keeps eight times of it
		f->min_rtt_us = tp->rtt_min.s[0].v;
		f->retransmits = tp->total_retrans;
		// Keeps the compiler from merging the ends of both ways: Linux 6.1 refuses arithmetic on a bpf_tcp_sock.
		asm volatile("");
		return;
	}
	bpf_sk = skb->sk;
	if (!bpf_sk)
		return;
	tcp = bpf_tcp_sock(bpf_sk);
	if (!tcp)
		return;
	f->srtt_us = tcp->srtt_us >> 3;
	f->min_rtt_us = tcp->rtt_min;
	f->retransmits = tcp->total_retrans;
}

// Every segment.
static __always_inline void tcp_count(struct __sk_buff *skb, enum place at, const struct flow_key *key, struct flow *f,
				      const struct packet *p)
{
	if ((f->tcp_flags | p->tcp_flags) != f->tcp_flags)
		f->tcp_flags |= p->tcp_flags;
	if (!p->window && !(p->tcp_flags & (TCP_FLAG_SYN | TCP_FLAG_RST)))
		__sync_fetch_and_add(&f->zero_windows, 1);
	if (key->direction == EGRESS)
		tcp_health(skb, at, f);
}

static __always_inline void tcp_syn(struct flow *f, const struct packet *p)
{
	f->client_isn = p->seq;
	f->server_isn = 0;
	f->handshake_us = 0;
	f->seen = (f->seen & SEEN_DNS) | SEEN_SYN | SEEN_FROM_CLIENT;
	f->connections++;
}

// The first segment of a flow in this generation, before it is in the table.
static __always_inline void tcp_first(struct __sk_buff *skb, enum place at, const struct flow_key *key, struct flow *f,
				      const struct packet *p)
{
	tcp_count(skb, at, key, f, p);
	if (is_initial_syn(p))
		tcp_syn(f, p);
}

static __always_inline __u32 microseconds(__u64 from, __u64 to)
{
	return to > from ? (to - from) / 1000 : 0;
}

// A SYN-ACK carries both initial sequence numbers: they go to this flow and to the one that the SYN began.
static __always_inline void tcp_syn_ack(__u32 gen, const struct flow_key *key, struct flow *f, const struct packet *p,
					__u64 now)
{
	__u8 add = SEEN_SYN | SEEN_SYNACK;

	f->client_isn = p->ack - 1;
	f->server_isn = p->seq;
	f->seen |= add | SEEN_FROM_SERVER;
	struct flow_key key_of_syn = flow_reverse(key);
	struct flow *syn = flow_lookup(gen, &key_of_syn);
	if (!syn || (syn->seen & SEEN_SYN && syn->client_isn != p->ack - 1))
		return;
	syn->client_isn = p->ack - 1;
	syn->server_isn = p->seq;
	syn->seen |= add | SEEN_FROM_CLIENT;
	// Where this is sent, the server is, and the handshake that it can measure has yet to be answered.
	if (key->direction == EGRESS)
		syn->seen |= SEEN_AWAIT_ACK;
	else if (syn->connections == 1 && !syn->handshake_us)
		syn->handshake_us = microseconds(syn->first_ns, now);
}

// A segment that changes what is known of the connection. f is in the table, or is the flow that was just put there.
static __always_inline void tcp_change(__u32 gen, const struct flow_key *key, struct flow *f, const struct packet *p,
				       __u64 now)
{
	enum event_kind kind;

	if (is_syn_ack(p)) {
		// The table has a copy of a flow that was just put there.
		struct flow *stored = flow_lookup(gen, key);
		tcp_syn_ack(gen, key, stored ? stored : f, p, now);
		return;
	}
	if (f->seen & SEEN_AWAIT_ACK && p->tcp_flags & TCP_FLAG_ACK) {
		struct flow_key key_of_syn_ack = flow_reverse(key);
		struct flow *syn_ack = flow_lookup(gen, &key_of_syn_ack);
		f->seen &= ~SEEN_AWAIT_ACK;
		if (syn_ack && !syn_ack->handshake_us)
			syn_ack->handshake_us = microseconds(syn_ack->first_ns, now);
	}
	if (is_initial_syn(p)) {
		// The one that began the flow, or was sent again, is known.
		if (!(f->seen & SEEN_SYN) || f->client_isn != p->seq)
			tcp_syn(f, p);
		kind = EVENT_SYN;
	} else if (p->tcp_flags & TCP_FLAG_RST) {
		kind = EVENT_RST;
	} else if (p->tcp_flags & TCP_FLAG_FIN) {
		kind = EVENT_FIN;
	} else {
		return;
	}
	if (events_enabled && !event_emit(kind, key, f, p, now))
		event_lost();
}
