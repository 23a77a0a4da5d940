// From a packet to its addresses, ports, flags and wire size.
#pragma once

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <stdbool.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "flow.h"

#define TCP_FLAG_FIN 0x01
#define TCP_FLAG_SYN 0x02
#define TCP_FLAG_RST 0x04
#define TCP_FLAG_ACK 0x10

#define MAX_VLAN_TAGS 2
#define MAX_EXT_HEADERS 8
#define ICMPV6 58
#define SCTP 132
#define ICMP_HEADER_LEN 8
#define IP_OFFSET_MASK 0x1fff

struct packet {
	__u32 bytes; // layer 3, as on the wire
	__u32 packets;
	__u32 seq;     // TCP sequence number
	__u8 tcp_flags; // 0 unless TCP
};

enum parsed {
	NOT_IP, // nothing of ours
	MALFORMED,
	PARSED,
};

// Reads relative to the network header, which the stack has set at every hook of ours: so Ethernet, link-layer-less
// devices and sockets need no code of their own, and paged data is read as well as linear.
static __always_inline long load(struct __sk_buff *skb, __u32 off, void *to, __u32 len)
{
	return bpf_skb_load_bytes_relative(skb, off, to, len, BPF_HDR_START_NET);
}

// Fills ports, flags and the transport header's length. Returns false when the header is cut off.
static __always_inline bool parse_transport(struct __sk_buff *skb, __u32 off, struct flow_key *key,
					    struct packet *p, __u32 *len)
{
	switch (key->transport) {
	case IPPROTO_TCP: {
		__u8 h[14];
		if (load(skb, off, h, sizeof(h)))
			return false;
		key->sport = h[0] << 8 | h[1];
		key->dport = h[2] << 8 | h[3];
		p->seq = (__u32)h[4] << 24 | h[5] << 16 | h[6] << 8 | h[7];
		p->tcp_flags = h[13];
		*len = (h[12] >> 4) * 4;
		return *len >= sizeof(struct tcphdr);
	}
	case IPPROTO_UDP:
	case SCTP: {
		__u8 h[4];
		if (load(skb, off, h, sizeof(h)))
			return false;
		key->sport = h[0] << 8 | h[1];
		key->dport = h[2] << 8 | h[3];
		*len = sizeof(struct udphdr);
		return true;
	}
	case IPPROTO_ICMP:
	case ICMPV6: {
		__u8 h[2];
		if (load(skb, off, h, sizeof(h)))
			return false;
		key->dport = h[0] << 8 | h[1];
		*len = ICMP_HEADER_LEN;
		return true;
	}
	}
	*len = 0;
	return true;
}

// Walks the extension headers (RFC 8200, AH: RFC 4302). Returns the offset of the transport header and sets
// key->transport; sets *fragment when this is a fragment other than the first. Returns 0 when the chain is cut off or
// longer than MAX_EXT_HEADERS.
static __always_inline __u32 skip_ext_headers(struct __sk_buff *skb, __u32 off, struct flow_key *key, bool *fragment)
{
	for (int i = 0; i < MAX_EXT_HEADERS; i++) {
		__u8 h[4];
		switch (key->transport) {
		case IPPROTO_HOPOPTS:
		case IPPROTO_ROUTING:
		case IPPROTO_DSTOPTS:
			if (load(skb, off, h, sizeof(h)))
				return 0;
			off += (h[1] + 1) * 8;
			break;
		case IPPROTO_AH:
			if (load(skb, off, h, sizeof(h)))
				return 0;
			off += (h[1] + 2) * 4;
			break;
		case IPPROTO_FRAGMENT:
			if (load(skb, off, h, sizeof(h)))
				return 0;
			off += 8;
			if ((h[2] << 8 | h[3]) & 0xfff8) {
				key->transport = h[0];
				*fragment = true;
				return off;
			}
			break;
		default:
			return off;
		}
		key->transport = h[0];
	}
	return 0;
}

// A super-packet leaves (GSO) or came (GRO) as gso_segs packets, each with the headers of this one.
static __always_inline void unfold(struct __sk_buff *skb, __u32 headers, struct packet *p)
{
	__u32 size = skb->gso_size, segs = skb->gso_segs;
	if (!size || p->bytes <= headers)
		return;
	if (!segs) // a guest's super-packet: the host was not told
		segs = (p->bytes - headers + size - 1) / size;
	if (segs > 1) {
		p->packets = segs;
		p->bytes += (segs - 1) * headers;
	}
}

// Fills key's addresses, ports and transport, and p. l2_len is what skb->len counts before the IP header: it is used
// only where the IP header has no usable length of its own (BIG TCP), because skb->len also counts Ethernet padding.
static __always_inline enum parsed parse(struct __sk_buff *skb, __u32 l2_len, struct flow_key *key, struct packet *p)
{
	__u16 proto = bpf_ntohs((__u16)skb->protocol);
	__u32 off = 0, total, l4_len = 0;
	bool fragment = false, partial = false;

	for (int i = 0; i < MAX_VLAN_TAGS && (proto == ETH_P_8021Q || proto == ETH_P_8021AD); i++) {
		__u8 tag[4];
		if (load(skb, off, tag, sizeof(tag)))
			return MALFORMED;
		proto = tag[2] << 8 | tag[3];
		off += sizeof(tag);
	}
	__u32 l3 = off, seen = skb->len > l2_len + l3 ? skb->len - l2_len - l3 : 0;

	if (proto == ETH_P_IP) {
		struct iphdr ip;
		if (load(skb, off, &ip, sizeof(ip)) || ip.version != 4 || ip.ihl < 5)
			return MALFORMED;
		*(__u16 *)&key->saddr[10] = 0xffff;
		*(__u32 *)&key->saddr[12] = ip.saddr;
		*(__u16 *)&key->daddr[10] = 0xffff;
		*(__u32 *)&key->daddr[12] = ip.daddr;
		key->transport = ip.protocol;
		total = bpf_ntohs(ip.tot_len);
		partial = ip.frag_off & bpf_htons(IP_OFFSET_MASK);
		off += ip.ihl * 4;
	} else if (proto == ETH_P_IPV6) {
		struct ipv6hdr ip;
		if (load(skb, off, &ip, sizeof(ip)) || ip.version != 6)
			return MALFORMED;
		__builtin_memcpy(key->saddr, &ip.saddr, 16);
		__builtin_memcpy(key->daddr, &ip.daddr, 16);
		key->transport = ip.nexthdr;
		total = ip.payload_len ? bpf_ntohs(ip.payload_len) + sizeof(ip) : 0;
		off = skip_ext_headers(skb, off + sizeof(ip), key, &fragment);
		if (!off)
			return MALFORMED;
		partial = fragment;
	} else {
		return NOT_IP;
	}
	if (!partial && !parse_transport(skb, off, key, p, &l4_len))
		return MALFORMED;
	p->bytes = total && total <= seen ? total : seen;
	p->packets = 1;
	unfold(skb, off - l3 + l4_len, p);
	return PARSED;
}
