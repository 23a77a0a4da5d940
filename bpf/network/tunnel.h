// The flows inside tunnels: VXLAN (RFC 7348), Geneve (RFC 8926), GRE (RFC 2784, 2890) and IP in IP (RFC 2003, 2473).
#pragma once

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/types.h>
#include <stdbool.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "flow.h"
#include "parse.h"

#define VXLAN_PORT 4789
#define VXLAN_PORT_LINUX 8472 // the kernel's default, from before there was an assigned one
#define GENEVE_PORT 6081
#define VXLAN_HEADER_LEN 8
#define GENEVE_HEADER_LEN 8
#define GRE_CHECKSUM 0x8000
#define GRE_KEY 0x2000
#define GRE_SEQUENCE 0x1000
#define GRE_VERSION 0x0007

// True: a tunnelled packet is counted as the packet inside. False: as the packet outside.
const volatile bool tunnels_enabled = false;

// Finds the packet inside one whose transport header ends at end. Returns the EtherType of what is there in the upper
// half, and its offset in the lower; 0 when this is no tunnel or carries no IP.
__noinline __u32 tunnel_inside(struct __sk_buff *skb, __u32 transport, __u32 dport, __u32 end)
{
	__u16 proto = 0;
	__u8 h[8];

	if (transport == IPPROTO_IPIP)
		return ETH_P_IP << 16 | (end & 0xffff);
	if (transport == IPPROTO_IPV6)
		return (__u32)ETH_P_IPV6 << 16 | (end & 0xffff);
	if (transport == IPPROTO_GRE) {
		if (bpf_skb_load_bytes_relative(skb, end, h, 4, BPF_HDR_START_NET))
			return 0;
		__u16 flags = bpf_ntohs(*(__be16 *)&h[0]);
		if (flags & GRE_VERSION)
			return 0;
		proto = bpf_ntohs(*(__be16 *)&h[2]);
		end += 4 + (flags & GRE_CHECKSUM ? 4 : 0) + (flags & GRE_KEY ? 4 : 0) + (flags & GRE_SEQUENCE ? 4 : 0);
	} else if (transport == IPPROTO_UDP && (dport == VXLAN_PORT || dport == VXLAN_PORT_LINUX)) {
		proto = ETH_P_TEB;
		end += VXLAN_HEADER_LEN;
	} else if (transport == IPPROTO_UDP && dport == GENEVE_PORT) {
		if (bpf_skb_load_bytes_relative(skb, end, h, 4, BPF_HDR_START_NET) || h[0] >> 6)
			return 0;
		proto = bpf_ntohs(*(__be16 *)&h[2]);
		end += GENEVE_HEADER_LEN + (h[0] & 0x3f) * 4;
	}
	if (proto == ETH_P_TEB) {
		if (bpf_skb_load_bytes_relative(skb, end + 12, h, 2, BPF_HDR_START_NET))
			return 0;
		proto = bpf_ntohs(*(__be16 *)&h[0]);
		end += ETH_HLEN;
	}
	return proto == ETH_P_IP || proto == ETH_P_IPV6 ? (__u32)proto << 16 | (end & 0xffff) : 0;
}

// Fills key's addresses, ports and transport, and p. l2_len is what skb->len counts before the IP header.
static __always_inline enum parsed parse(struct __sk_buff *skb, enum place at, __u32 l2_len, struct flow_key *key,
					 struct packet *p)
{
	__u16 proto = bpf_ntohs((__u16)skb->protocol);
	__u32 l3 = 0, end = 0;

	for (int i = 0; at == AT_INTERFACE && i < MAX_VLAN_TAGS && (proto == ETH_P_8021Q || proto == ETH_P_8021AD); i++) {
		__u8 tag[4];
		if (load(skb, at, l3, tag, sizeof(tag)))
			return MALFORMED;
		proto = bpf_ntohs(*(__be16 *)&tag[2]);
		l3 += sizeof(tag);
	}
	__u32 room = skb->len > l3 ? skb->len - l3 : 0;
	enum parsed result = parse_ip(skb, at, proto, l3, room, l2_len, key, p, &end);
	if (result != PARSED)
		return result;

	// Of a super-packet in a tunnel every segment has the headers inside as well as those outside.
	if (at == AT_INTERFACE && (tunnels_enabled || skb->gso_size)) {
		struct flow_key in_key = *key;
		struct packet in = {};
		__u32 inside = tunnel_inside(skb, key->transport, key->dport, end), off = inside & 0xffff, in_end = 0;
		if (inside && off - l3 < room &&
		    parse_ip(skb, at, inside >> 16, off, room - (off - l3), l2_len, &in_key, &in, &in_end) == PARSED) {
			end = in_end;
			if (tunnels_enabled) {
				*key = in_key;
				*p = in;
				l3 = off;
			}
		}
	}
	p->payload = end;
	p->payload_len = p->bytes > end - l3 ? p->bytes - (end - l3) : 0;
	unfold(skb, end - l3, p);
	return PARSED;
}
