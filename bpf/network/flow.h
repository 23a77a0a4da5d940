// Flow keys and counters, and what could not be counted.
#pragma once

#include <linux/bpf.h>
#include <linux/types.h>
#include <stdbool.h>
#include <bpf/bpf_helpers.h>

enum direction {
	INGRESS = 1, // the local endpoint is the destination
	EGRESS = 2,  // the local endpoint is the source
};

struct flow_key {
	__u8 saddr[16]; // IPv4 as ::ffff:a.b.c.d
	__u8 daddr[16];
	__u64 scope; // where it was seen: cgroup id of the socket (cgroup mode), interface index (tc mode)
	__u16 sport; // host byte order; 0 for ICMP and for fragments without a transport header
	__u16 dport; // as sport; ICMP and ICMPv6: type << 8 | code
	__u8 transport;
	__u8 direction;
	__u8 facing; // tc mode: 1 when the interface faces an endpoint in another namespace, so that what comes in is EGRESS
	__u8 pad;    // always 0: it is part of the hashed key
};

// What has been seen of a flow: bits of flow.seen.
enum seen {
	SEEN_SYN = 1,         // client_isn is set
	SEEN_SYNACK = 2,      // client_isn and server_isn are set
	SEEN_FROM_CLIENT = 4, // the source opened the connection
	SEEN_FROM_SERVER = 8, // the destination did
	SEEN_AWAIT_ACK = 16,  // the other direction sent its SYN-ACK: the next ACK ends the handshake
	SEEN_DNS = 32,        // one of the ports is a DNS server's
};

struct flow {
	// What every packet touches, in one cache line with the end of the key.
	__u64 bytes; // layer 3, as on the wire: GSO and GRO super-packets unfolded
	__u64 packets;
	__u32 last_jiffies; // a clock would cost a tenth of all that a packet costs
	__u8 tcp_flags;     // union
	__u8 seen;          // enum seen
	__u8 pad[2];
	__u32 connections; // initial SYN segments, retransmitted ones not counted again
	// What every TCP segment that is sent touches.
	__u32 srtt_us; // of the sending socket, newest
	__u32 min_rtt_us;
	__u32 retransmits;  // of the sending socket since it was made, newest
	__u32 zero_windows; // segments that announced a window of zero
	// What is written once.
	__u32 first_jiffies;
	__u64 first_ns;     // CLOCK_MONOTONIC
	__u64 last_ns;      // of events; user space sets it in drained flows, from the other three
	__u64 cgroup_id;    // of the local endpoint's socket; 0 when there is none
	__u32 client_isn;   // initial sequence numbers of the latest connection
	__u32 server_isn;
	__u32 handshake_us; // SYN to SYN-ACK at the client, SYN-ACK to ACK at the server
	__u32 pid;          // of the process that made that socket, in the first pid namespace; 0 when unknown
	char comm[16];
};

// What was seen and could be neither counted nor reported. Key: 0. Never deleted.
struct loss {
	__u64 packets;
	__u64 bytes;
	__u64 events;
	__u64 thinned;  // sampled packet events left out because the ring buffer was nearly full
	__u64 unparsed; // packets with a truncated or malformed IP header
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct loss);
} losses SEC(".maps");

static __always_inline struct loss *local_loss(void)
{
	__u32 zero = 0;
	return bpf_map_lookup_elem(&losses, &zero);
}
