// From a packet to its addresses, ports, flags and wire size.
#pragma once

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/types.h>
#include <stdbool.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "flow.h"
#include "fragment.h"

#define TCP_FLAG_FIN 0x01
#define TCP_FLAG_SYN 0x02
#define TCP_FLAG_RST 0x04
#define TCP_FLAG_ACK 0x10

#define MAX_VLAN_TAGS 2
#define MAX_EXT_HEADERS 8
#define MAX_HEADERS 1024 // of one packet, all layers together
#define ICMPV6 58
#define SCTP 132
#define TCP_HEADER_LEN 20
#define UDP_HEADER_LEN 8
#define ICMP_HEADER_LEN 8
#define IPV4_MORE_FRAGMENTS 0x2000
#define IPV4_OFFSET 0x1fff
#define IPV6_OFFSET 0xfff8
#define IPV6_MORE_FRAGMENTS 0x0001

struct packet {
	__u32 bytes; // layer 3, as on the wire
	__u32 packets;
	__u32 seq; // TCP
	__u32 ack;
	__u32 payload;     // offset of the transport payload from the network header
	__u32 payload_len; // of a super-packet, all of it
	__u16 window;
	__u8 tcp_flags; // 0 unless TCP
};

static __always_inline bool is_initial_syn(const struct packet *p)
{
	return (p->tcp_flags & (TCP_FLAG_SYN | TCP_FLAG_ACK)) == TCP_FLAG_SYN;
}

static __always_inline bool is_syn_ack(const struct packet *p)
{
	return (p->tcp_flags & (TCP_FLAG_SYN | TCP_FLAG_ACK)) == (TCP_FLAG_SYN | TCP_FLAG_ACK);
}

enum parsed {
	NOT_IP, // nothing of ours
	MALFORMED,
	PARSED,
};

// Where a program runs. Sockets see packets from the IP header on, whole datagrams, and no tunnels' insides but their own.
enum place {
	AT_SOCKET,
	AT_INTERFACE,
};

// Reads at an offset from the network header, which the stack has set at every hook of ours: so Ethernet and devices
// without a link-layer header need no code of their own. At a socket the data begins there: its linear part is read
// without a helper, its pages by one. At an interface only the linear part is read, where drivers put headers; a packet
// whose headers are in pages counts as unparsed.
static __always_inline long load(struct __sk_buff *skb, enum place at, __u32 off, void *to, const __u32 len)
{
	if (at == AT_SOCKET && off < MAX_HEADERS) {
		void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
		if (data + off + len <= end) {
			// In words, which any kernel of 64 bits lets a program read at any address: byte by byte takes 8 ns.
			__builtin_memcpy(to, __builtin_assume_aligned(data + off, 4), len);
			return 0;
		}
		return bpf_skb_load_bytes(skb, off, to, len);
	}
	return bpf_skb_load_bytes_relative(skb, off, to, len, BPF_HDR_START_NET);
}

// Fills ports, TCP fields and the transport header's length. Returns false when the header is cut off.
static __always_inline bool parse_transport(struct __sk_buff *skb, enum place at, __u32 off, struct flow_key *key,
					    struct packet *p, __u32 *len)
{
	__u8 h[16];

	switch (key->transport) {
	case IPPROTO_TCP:
		if (load(skb, at, off, h, sizeof(h)))
			return false;
		p->seq = bpf_ntohl(*(__be32 *)&h[4]);
		p->ack = bpf_ntohl(*(__be32 *)&h[8]);
		p->tcp_flags = h[13];
		p->window = *(__be16 *)&h[14];
		*len = (h[12] >> 4) * 4;
		if (*len < TCP_HEADER_LEN)
			return false;
		break;
	case IPPROTO_UDP:
	case SCTP:
		if (load(skb, at, off, h, 4))
			return false;
		*len = UDP_HEADER_LEN; // SCTP's is 12, but no super-packet of it has more than one
		break;
	case IPPROTO_ICMP:
	case ICMPV6:
		if (load(skb, at, off, h, 2))
			return false;
		key->dport = h[0] << 8 | h[1];
		*len = ICMP_HEADER_LEN;
		return true;
	default:
		*len = 0;
		return true;
	}
	key->sport = bpf_ntohs(*(__be16 *)&h[0]);
	key->dport = bpf_ntohs(*(__be16 *)&h[2]);
	return true;
}

// What ext_headers returns, packed so that the verifier sees one unknown number and checks the walk once, on its own.
#define EXT_OFFSET(x) ((__u32)(x) & 0xffff)
#define EXT_TRANSPORT(x) ((__u8)((x) >> 16))
#define EXT_FIRST_FRAGMENT (1 << 24)
#define EXT_LATER_FRAGMENT (1 << 25)
#define EXT_FRAGMENT_ID(x) ((__u32)((x) >> 32))

// Walks the extension headers (RFC 8200, AH: RFC 4302) from off, where the first one is of type next. Returns the offset
// and the type of the transport header, and the fragment's flags and id; 0 when the chain is cut off or longer than
// MAX_EXT_HEADERS.
__noinline __u64 ext_headers(struct __sk_buff *skb, __u32 off, __u32 next)
{
	__u64 result = 0;

	for (int i = 0; i < MAX_EXT_HEADERS; i++) {
		__u8 h[8];
		switch (next) {
		case IPPROTO_HOPOPTS:
		case IPPROTO_ROUTING:
		case IPPROTO_DSTOPTS:
		case IPPROTO_AH:
		case IPPROTO_FRAGMENT:
			break;
		default:
			return result | (next & 0xff) << 16 | (off & 0xffff);
		}
		if (bpf_skb_load_bytes_relative(skb, off, h, sizeof(h), BPF_HDR_START_NET))
			return 0;
		if (next == IPPROTO_FRAGMENT) {
			__u16 offset = bpf_ntohs(*(__be16 *)&h[2]);
			result |= (__u64)*(__u32 *)&h[4] << 32;
			off += 8;
			if (offset & IPV6_OFFSET)
				return result | EXT_LATER_FRAGMENT | h[0] << 16 | (off & 0xffff);
			if (offset & IPV6_MORE_FRAGMENTS)
				result |= EXT_FIRST_FRAGMENT;
		} else {
			off += next == IPPROTO_AH ? (h[1] + 2) * 4 : (h[1] + 1) * 8;
		}
		next = h[0];
	}
	return 0;
}

static __always_inline bool is_ext_header(__u8 next)
{
	return next == IPPROTO_HOPOPTS || next == IPPROTO_ROUTING || next == IPPROTO_DSTOPTS || next == IPPROTO_AH ||
	       next == IPPROTO_FRAGMENT;
}

// A super-packet leaves (GSO) or came (GRO) as gso_segs packets, each with the headers of this one.
static __always_inline void unfold(struct __sk_buff *skb, __u32 headers, struct packet *p)
{
	__u32 size = skb->gso_size, segs;
	if (!size || p->bytes <= headers)
		return;
	segs = skb->gso_segs;
	if (!segs) // a guest's super-packet: the host was not told
		segs = (p->bytes - headers + size - 1) / size;
	if (segs > 1) {
		p->packets = segs;
		p->bytes += (segs - 1) * headers;
	}
}

// Parses an IP header of version proto at off and what follows it. room is how many bytes skb->len counts from there on,
// and perhaps l2_len before: the link-layer header, on devices that have one.
// Sets *end to the offset of the payload.
static __always_inline enum parsed parse_ip(struct __sk_buff *skb, enum place at, __u16 proto, __u32 off, __u32 room,
					    __u32 l2_len, struct flow_key *key, struct packet *p, __u32 *end)
{
	struct fragment frag = {};
	__u32 total, l4_len = 0;

	if (proto == ETH_P_IP) {
		struct iphdr ip;
		if (load(skb, at, off, &ip, sizeof(ip)) || ip.version != 4 || ip.ihl < 5)
			return MALFORMED;
		__builtin_memset(key->saddr, 0, 10);
		*(__u16 *)&key->saddr[10] = 0xffff;
		*(__u32 *)&key->saddr[12] = ip.saddr;
		__builtin_memset(key->daddr, 0, 10);
		*(__u16 *)&key->daddr[10] = 0xffff;
		*(__u32 *)&key->daddr[12] = ip.daddr;
		key->transport = ip.protocol;
		total = bpf_ntohs(ip.tot_len);
		frag.id = ip.id;
		frag.later = ip.frag_off & bpf_htons(IPV4_OFFSET);
		frag.first = !frag.later && (ip.frag_off & bpf_htons(IPV4_MORE_FRAGMENTS));
		off += ip.ihl * 4;
	} else if (proto == ETH_P_IPV6) {
		struct ipv6hdr ip;
		if (load(skb, at, off, &ip, sizeof(ip)) || ip.version != 6)
			return MALFORMED;
		__builtin_memcpy(key->saddr, &ip.saddr, 16);
		__builtin_memcpy(key->daddr, &ip.daddr, 16);
		key->transport = ip.nexthdr;
		total = ip.payload_len ? bpf_ntohs(ip.payload_len) + sizeof(ip) : 0;
		off += sizeof(ip);
		if (is_ext_header(ip.nexthdr)) {
			__u64 ext = ext_headers(skb, off, ip.nexthdr);
			off = EXT_OFFSET(ext);
			if (!off)
				return MALFORMED;
			key->transport = EXT_TRANSPORT(ext);
			frag.id = EXT_FRAGMENT_ID(ext);
			frag.first = ext & EXT_FIRST_FRAGMENT;
			frag.later = ext & EXT_LATER_FRAGMENT;
		}
	} else {
		return NOT_IP;
	}
	// skb->len also counts Ethernet padding, so it is used only where the header has no usable length: BIG TCP.
	p->bytes = total && total <= room ? total : room > l2_len ? room - l2_len : 0;
	p->packets = 1;
	if (frag.later) {
		fragment_ports(&frag, key);
	} else {
		if (!parse_transport(skb, at, off, key, p, &l4_len))
			return MALFORMED;
		if (at == AT_INTERFACE && frag.first)
			fragment_remember(&frag, key);
	}
	*end = off + l4_len;
	return PARSED;
}
