//go:build ignore

// Counts the packets that the kernel drops, by reason, flow and cgroup.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <stdbool.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "drops.h"
#include "kernel.h"

char LICENSE[] SEC("license") = "GPL";

#define AF_INET 2
#define AF_INET6 10
#define TCP_TIME_WAIT 6
#define TCP_NEW_SYN_RECV 12
#define IP_OFFSET_MASK 0x1fff
#define MAX_EXT_HEADERS 8
#define SCTP 132

// The tracepoint's fourth argument, the socket that was to receive the packet: since Linux 6.11. User space looks at the
// kernel's BTF; a program that reads an argument that is not there cannot be attached.
const volatile bool has_receiver = false;

enum skb_drop_reason {
	SKB_NOT_DROPPED_YET,
	SKB_CONSUMED,
	SKB_DROP_REASON_NOT_SPECIFIED,
	SKB_DROP_REASON_QUEUE_PURGE,
};

// The linear part of a packet.
struct linear {
	const unsigned char *head;
	__u32 len;
};

static __always_inline bool load(const struct linear *l, __u32 off, void *to, __u32 len)
{
	return off + len <= l->len && !bpf_probe_read_kernel(to, len, l->head + off);
}

// Tells whether a reason is the one called so in the running kernel, where numbers differ and names may be missing.
#define IS_REASON(reason, name)                                      \
	(bpf_core_enum_value_exists(enum skb_drop_reason, name) &&   \
	 (reason) == bpf_core_enum_value(enum skb_drop_reason, name))

static __always_inline bool is_drop(__u32 reason)
{
	return !IS_REASON(reason, SKB_NOT_DROPPED_YET) && !IS_REASON(reason, SKB_CONSUMED);
}

// A TCP segment that got to its socket has been received, also where the socket is closed before anybody reads it (as
// nobody reads a FIN), or only its TIME_WAIT stub is left to answer. The kernel frees these like drops, once or twice a
// connection.
static __always_inline bool was_received(const struct drop_key *key, struct sock *sk)
{
	if (key->transport != IPPROTO_TCP || !sk || bpf_ntohs(BPF_CORE_READ(sk, __sk_common.skc_dport)) != key->sport)
		return false;
	return IS_REASON(key->reason, SKB_DROP_REASON_NOT_SPECIFIED) || IS_REASON(key->reason, SKB_DROP_REASON_QUEUE_PURGE);
}

static __always_inline bool is_inet(struct sock *sk)
{
	__u16 family = BPF_CORE_READ(sk, __sk_common.skc_family);
	return family == AF_INET || family == AF_INET6;
}

// Connection requests and TIME_WAIT stubs are smaller than a socket, and have no cgroup.
static __always_inline __u64 cgroup_of(struct sock *sk)
{
	__u8 state = BPF_CORE_READ(sk, __sk_common.skc_state);
	if (state == TCP_TIME_WAIT || state == TCP_NEW_SYN_RECV)
		return 0;
	return BPF_CORE_READ(sk, sk_cgrp_data.cgroup, kn, id);
}

static __always_inline void read_ports(const struct linear *l, __u32 off, struct drop_key *key)
{
	__be16 ports[2];
	if (key->transport != IPPROTO_TCP && key->transport != IPPROTO_UDP && key->transport != SCTP)
		return;
	if (!load(l, off, ports, sizeof(ports)))
		return;
	key->sport = bpf_ntohs(ports[0]);
	key->dport = bpf_ntohs(ports[1]);
}

static __always_inline void read_ipv4(const struct linear *l, __u32 off, struct drop_key *key)
{
	struct iphdr ip;
	if (!load(l, off, &ip, sizeof(ip)) || ip.version != 4 || ip.ihl < 5)
		return;
	key->ip = 4;
	*(__u16 *)&key->saddr[10] = 0xffff;
	*(__u32 *)&key->saddr[12] = ip.saddr;
	*(__u16 *)&key->daddr[10] = 0xffff;
	*(__u32 *)&key->daddr[12] = ip.daddr;
	key->transport = ip.protocol;
	if (!(ip.frag_off & bpf_htons(IP_OFFSET_MASK)))
		read_ports(l, off + ip.ihl * 4, key);
}

static __always_inline void read_ipv6(const struct linear *l, __u32 off, struct drop_key *key)
{
	struct ipv6hdr ip;
	if (!load(l, off, &ip, sizeof(ip)) || ip.version != 6)
		return;
	key->ip = 6;
	__builtin_memcpy(key->saddr, &ip.saddr, 16);
	__builtin_memcpy(key->daddr, &ip.daddr, 16);
	key->transport = ip.nexthdr;
	off += sizeof(ip);
	for (int i = 0; i < MAX_EXT_HEADERS; i++) {
		__u8 h[4];
		switch (key->transport) {
		case IPPROTO_HOPOPTS:
		case IPPROTO_ROUTING:
		case IPPROTO_DSTOPTS:
		case IPPROTO_FRAGMENT:
			break;
		default:
			read_ports(l, off, key);
			return;
		}
		if (!load(l, off, h, sizeof(h)))
			return;
		bool fragment = key->transport == IPPROTO_FRAGMENT;
		key->transport = h[0];
		if (fragment && (h[2] << 8 | h[3]) & 0xfff8)
			return;
		off += fragment ? 8 : (h[1] + 1) * 8;
	}
}

// Not the typed form of the tracepoint (tp_btf): Linux 6.11 and 6.12 take its arguments for never NULL, and let a program
// that asks all the same fall over one that is.
SEC("raw_tp/kfree_skb")
int dropped(struct bpf_raw_tracepoint_args *ctx)
{
	struct sk_buff *skb = (void *)ctx->args[0];
	struct drop_key key = { .reason = ctx->args[2] };
	struct sock *sk = NULL;

	if (!is_drop(key.reason))
		return 0;
	if (has_receiver)
		sk = (void *)ctx->args[3];
	if (!sk)
		sk = BPF_CORE_READ(skb, sk);
	__be16 protocol = BPF_CORE_READ(skb, protocol);
	bool inet = sk && is_inet(sk);
	// Messages of Unix and netlink sockets are no packets.
	if (!protocol && !inet)
		return 0;
	struct linear l = { .head = BPF_CORE_READ(skb, head), .len = BPF_CORE_READ(skb, tail) };
	__u32 off = BPF_CORE_READ(skb, network_header);
	// There is always room before a packet, so that 0 means that nobody has said where the IP header is.
	if (off && protocol == bpf_htons(ETH_P_IP))
		read_ipv4(&l, off, &key);
	else if (off && protocol == bpf_htons(ETH_P_IPV6))
		read_ipv6(&l, off, &key);
	if (inet) {
		if (was_received(&key, sk))
			return 0;
		key.cgroup_id = cgroup_of(sk);
	}
	// A super-packet stands for gso_segs packets on the wire.
	struct skb_shared_info *shared = (void *)(l.head + BPF_CORE_READ(skb, end));
	__u16 segs = BPF_CORE_READ(shared, gso_segs);
	count_drop(&key, segs ? segs : 1);
	return 0;
}
