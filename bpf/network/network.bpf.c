//go:build ignore

// The flow engine: counts every packet of every socket (cgroup mode) or interface (tc mode) into its flow, and never
// changes, delays or drops one.
#include "event.h"
#include "flow.h"
#include "kernel.h"
#include "owner.h"
#include "parse.h"
#include "table.h"
#include "tcp.h"
#include "tunnel.h"

char LICENSE[] SEC("license") = "GPL";

// Process id of the collector in the first pid namespace, whose own sockets are left out. 0: nobody is.
const volatile __u32 self_pid = 0;

// An interface that tc mode watches. Key: interface index. Value: struct interface. Written by user space.
struct interface {
	__s32 peer_netns; // id of the namespace that holds the other end (a pod's), or -1: the endpoints are on this host
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 16384);
	__type(key, __u32);
	__type(value, struct interface);
} interfaces SEC(".maps");

// Per-CPU counters take plain additions: programs of one type do not preempt each other on a CPU, but a cgroup program
// in process context and one in softirq do.
static __always_inline void lose(const struct packet *p)
{
	struct loss *l = local_loss();
	if (!l)
		return;
	__sync_fetch_and_add(&l->packets, p->packets);
	__sync_fetch_and_add(&l->bytes, p->bytes);
}

static __always_inline void lose_unparsed(void)
{
	struct loss *l = local_loss();
	if (l)
		__sync_fetch_and_add(&l->unparsed, 1);
}

static __always_inline void flow_own(struct flow *f, const struct owner *o)
{
	f->pid = o->pid;
	__builtin_memcpy(f->comm, o->comm, sizeof(f->comm));
}

// A packet of a flow that is in the table.
static __always_inline void flow_add(struct __sk_buff *skb, enum place at, __u32 gen, const struct flow_key *key,
				     struct flow *f, const struct packet *p)
{
	__sync_fetch_and_add(&f->bytes, p->bytes);
	__sync_fetch_and_add(&f->packets, p->packets);
	f->last_jiffies = bpf_jiffies64();
	if (key->transport == IPPROTO_TCP) {
		tcp_count(skb, at, key, f, p);
		if (p->tcp_flags & (TCP_FLAG_SYN | TCP_FLAG_FIN | TCP_FLAG_RST) || f->seen & SEEN_AWAIT_ACK)
			tcp_change(gen, key, f, p, bpf_ktime_get_ns());
	}
	if (f->seen & SEEN_DNS)
		dns_event(skb, key, f, p);
	if (events_enabled && (first_packets > 1 || sampling) && event_sampled(f->packets) &&
	    !event_emit(EVENT_PACKET, key, f, p, bpf_ktime_get_ns()))
		event_lost();
}

// The first packet of a flow in this generation: puts the flow into the table, or the packet into the ring buffer, or
// counts it as lost. f says who the flow belongs to.
static __always_inline void flow_new(struct __sk_buff *skb, enum place at, __u32 gen, __u32 hash, enum where where,
				     const struct flow_key *key, struct flow *f, const struct packet *p)
{
	__u64 now = bpf_ktime_get_ns();
	struct flow *other = NULL;

	f->bytes = p->bytes;
	f->packets = p->packets;
	f->first_ns = now;
	f->first_jiffies = f->last_jiffies = bpf_jiffies64();
	if (is_dns(key))
		f->seen |= SEEN_DNS;
	if (key->transport == IPPROTO_TCP)
		tcp_first(skb, at, key, f, p);

	if (flow_insert(gen, hash, where, key, f, &other)) {
		volatile __u32 *entries = gen ? &entries_1 : &entries_0;
		__sync_fetch_and_add(entries, 1);
		if (*entries >= pressure_entries && !pressed) {
			pressed = 1;
			event_emit(EVENT_PRESSURE, key, f, p, now);
		}
	} else {
		if (other) {
			__sync_fetch_and_add(&other->bytes, p->bytes);
			__sync_fetch_and_add(&other->packets, p->packets);
			return;
		}
		if (!event_emit(EVENT_OVERFLOW, key, f, p, now))
			lose(p);
	}
	if (key->transport == IPPROTO_TCP)
		tcp_change(gen, key, f, p, now);
	else if (events_enabled && !(event_room() && event_emit(EVENT_NEW, key, f, p, now)))
		event_lost();
	if (f->seen & SEEN_DNS)
		dns_event(skb, key, f, p);
}

// The cgroup of the socket that a packet is at.
static __always_inline __u64 socket_cgroup(struct __sk_buff *skb)
{
	if (!can_read_kernel_types())
		return bpf_skb_cgroup_id(skb);
	struct sock *sk = ((struct sk_buff *)bpf_cast_to_kern_ctx(skb))->sk;
	return sk ? sk->sk_cgrp_data.cgroup->kn->id : 0;
}

// cgroup mode: the packet is at a socket, sent (EGRESS) or received (INGRESS).
static __always_inline void observe_socket(struct __sk_buff *skb, enum direction dir)
{
	struct flow_key key = {};
	struct packet p = {};

	switch (parse(skb, AT_SOCKET, 0, &key, &p)) {
	case NOT_IP:
		return;
	case MALFORMED:
		lose_unparsed();
		return;
	case PARSED:
		break;
	}
	key.direction = dir;
	key.scope = socket_cgroup(skb);

	__u32 gen = generation & 1, hash = flow_hash(&key);
	enum where where;
	struct flow *f = flow_find(gen, hash, &key, &where);
	if (f) {
		flow_add(skb, AT_SOCKET, gen, &key, f, &p);
		return;
	}
	// Own sockets are looked for on this slow path alone: their flows never get into the table.
	struct flow fresh = {};
	struct owner *o = owner_of(skb->sk);
	if (o) {
		if (self_pid && o->pid == self_pid)
			return;
		flow_own(&fresh, o);
	}
	fresh.cgroup_id = key.scope;
	flow_new(skb, AT_SOCKET, gen, hash, where, &key, &fresh, &p);
}

SEC("cgroup_skb/ingress")
int cgroup_ingress(struct __sk_buff *skb)
{
	observe_socket(skb, INGRESS);
	return 1;
}

SEC("cgroup_skb/egress")
int cgroup_egress(struct __sk_buff *skb)
{
	observe_socket(skb, EGRESS);
	return 1;
}

// Finds the local endpoint's socket in its network namespace, as an incoming packet would find it. Only TCP and UDP
// have such a table. The caller releases the socket.
static __always_inline struct bpf_sock *socket_of(struct __sk_buff *skb, const struct flow_key *key, __s32 netns)
{
	struct bpf_sock_tuple t = {};
	bool egress = key->direction == EGRESS;
	const __u8 *local = egress ? key->saddr : key->daddr, *remote = egress ? key->daddr : key->saddr;
	__be16 lport = bpf_htons(egress ? key->sport : key->dport), rport = bpf_htons(egress ? key->dport : key->sport);
	__u64 ns = netns < 0 ? BPF_F_CURRENT_NETNS : netns;
	__u32 size;

	if (*(__u16 *)&key->saddr[10] == 0xffff && !*(__u64 *)key->saddr) {
		t.ipv4.saddr = *(__u32 *)&remote[12];
		t.ipv4.daddr = *(__u32 *)&local[12];
		t.ipv4.sport = rport;
		t.ipv4.dport = lport;
		size = sizeof(t.ipv4);
	} else {
		__builtin_memcpy(t.ipv6.saddr, remote, 16);
		__builtin_memcpy(t.ipv6.daddr, local, 16);
		t.ipv6.sport = rport;
		t.ipv6.dport = lport;
		size = sizeof(t.ipv6);
	}
	if (key->transport == IPPROTO_TCP)
		return bpf_sk_lookup_tcp(skb, &t, size, ns, 0);
	if (key->transport == IPPROTO_UDP)
		return bpf_sk_lookup_udp(skb, &t, size, ns, 0);
	return NULL;
}

// Fills in who the local endpoint is. Returns false when it is the collector itself.
static __always_inline bool identify(struct __sk_buff *skb, const struct flow_key *key, struct flow *f)
{
	__u32 ifindex = skb->ifindex;
	struct interface *dev = bpf_map_lookup_elem(&interfaces, &ifindex);
	struct owner *o = NULL;
	bool self = false;

	// A packet that left a socket still carries it, until a router or a bridge's firewall lets go of it.
	if (key->direction == EGRESS && skb->sk) {
		f->cgroup_id = bpf_skb_cgroup_id(skb);
		o = owner_of(skb->sk);
		if (o) {
			flow_own(f, o);
			return !(self_pid && o->pid == self_pid);
		}
	}
	struct bpf_sock *sk = socket_of(skb, key, dev ? dev->peer_netns : -1);
	if (!sk)
		return true;
	o = owner_of(sk);
	if (o) {
		self = self_pid && o->pid == self_pid;
		flow_own(f, o);
		// A tc program cannot ask for another socket's cgroup. Its owner's is the one it was made in, and it keeps that.
		if (!f->cgroup_id)
			f->cgroup_id = o->cgroup_id;
	}
	bpf_sk_release(sk);
	return !self;
}

// tc mode: the packet passes an interface, from (EGRESS) or to (INGRESS) the endpoint: the one in the other namespace that
// the interface faces, or else this host.
static __always_inline void observe_interface(struct __sk_buff *skb, enum direction dir, bool facing)
{
	struct flow_key key = {};
	struct packet p = {};

	switch (parse(skb, AT_INTERFACE, ETH_HLEN, &key, &p)) {
	case NOT_IP:
		return;
	case MALFORMED:
		lose_unparsed();
		return;
	case PARSED:
		break;
	}
	key.direction = dir;
	key.facing = facing;
	key.scope = skb->ifindex;

	__u32 gen = generation & 1, hash = flow_hash(&key);
	enum where where;
	struct flow *f = flow_find(gen, hash, &key, &where);
	if (f) {
		flow_add(skb, AT_INTERFACE, gen, &key, f, &p);
		return;
	}
	struct flow fresh = {};
	if (identify(skb, &key, &fresh))
		flow_new(skb, AT_INTERFACE, gen, hash, where, &key, &fresh, &p);
}

// TC_ACT_UNSPEC, which tcx calls TCX_NEXT: leave the verdict to whoever comes next.
SEC("tc")
int tc_from_endpoint(struct __sk_buff *skb)
{
	observe_interface(skb, EGRESS, true);
	return -1;
}

SEC("tc")
int tc_to_endpoint(struct __sk_buff *skb)
{
	observe_interface(skb, INGRESS, true);
	return -1;
}

SEC("tc")
int tc_from_host(struct __sk_buff *skb)
{
	observe_interface(skb, EGRESS, false);
	return -1;
}

SEC("tc")
int tc_to_host(struct __sk_buff *skb)
{
	observe_interface(skb, INGRESS, false);
	return -1;
}
