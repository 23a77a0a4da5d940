// The ports of fragments: only the first of a datagram carries them.
#pragma once

#include <linux/bpf.h>
#include <linux/types.h>
#include <stdbool.h>
#include <bpf/bpf_helpers.h>

#include "flow.h"

struct fragment {
	__u32 id;
	bool first; // further ones follow
	bool later; // not the first: no transport header
};

struct fragment_key {
	__u8 saddr[16];
	__u8 daddr[16];
	__u32 id;
	__u32 transport;
};

struct fragment_ports {
	__u16 sport;
	__u16 dport;
};

// Key: what RFC 791 and RFC 8200 name a datagram by. Value: struct fragment_ports. Size: 4096 in tc mode, where fragments
// are seen; 1 at sockets. Deleted by: the kernel, the least recently used first.
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct fragment_key);
	__type(value, struct fragment_ports);
} fragments SEC(".maps");

static __always_inline struct fragment_key fragment_key(const struct fragment *f, const struct flow_key *key)
{
	struct fragment_key k = {.id = f->id, .transport = key->transport};
	__builtin_memcpy(k.saddr, key->saddr, 16);
	__builtin_memcpy(k.daddr, key->daddr, 16);
	return k;
}

static __always_inline void fragment_remember(const struct fragment *f, const struct flow_key *key)
{
	struct fragment_key k = fragment_key(f, key);
	struct fragment_ports ports = {key->sport, key->dport};
	bpf_map_update_elem(&fragments, &k, &ports, BPF_ANY);
}

// Leaves the ports 0 when the first fragment has not been seen, or came later.
static __always_inline void fragment_ports(const struct fragment *f, struct flow_key *key)
{
	struct fragment_key k = fragment_key(f, key);
	struct fragment_ports *ports = bpf_map_lookup_elem(&fragments, &k);
	if (ports) {
		key->sport = ports->sport;
		key->dport = ports->dport;
	}
}
