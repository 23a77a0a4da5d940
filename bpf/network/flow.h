// Flow keys, counters and the two generations of the flow table.
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

// Two generations of one table: programs write to the current one; user space flips, waits until no program can still
// hold an entry of the other, and then reads and empties that one at its leisure. So no update ever meets a deletion.
// Key: struct flow_key. Value: struct flow. Size: flow_table_size each, allocated as used. Deleted by: user space only,
// after the flip.
struct flow_table {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 100000);
	__type(key, struct flow_key);
	__type(value, struct flow);
};

struct flow_table flows_0 SEC(".maps");
struct flow_table flows_1 SEC(".maps");

// The generation that programs write to: 0 or 1. Written by user space.
volatile __u32 generation = 0;
// Entries put into each generation; user space resets it when it has emptied one.
volatile __u32 entries_0 = 0;
volatile __u32 entries_1 = 0;
// Set when user space has been asked to flip; user space resets it. Two CPUs may both ask: that does no harm.
volatile __u32 pressed = 0;
// Number of entries at which a program asks user space to flip before its interval is over.
const volatile __u32 pressure_entries = 75000;

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

// Both branches name their map outright: a map pointer chosen at run time would keep the kernel from inlining the
// lookup. The empty asm keeps the compiler from merging the branches.
static __always_inline struct flow *flow_lookup(__u32 gen, const struct flow_key *key)
{
	if (gen) {
		asm volatile("");
		return bpf_map_lookup_elem(&flows_1, key);
	}
	return bpf_map_lookup_elem(&flows_0, key);
}

static __always_inline long flow_insert(__u32 gen, const struct flow_key *key, const struct flow *f)
{
	if (gen) {
		asm volatile("");
		return bpf_map_update_elem(&flows_1, key, f, BPF_NOEXIST);
	}
	return bpf_map_update_elem(&flows_0, key, f, BPF_NOEXIST);
}
