// The front of the flow table: the flows that came first in their generation, found without a call.
#pragma once

#include <linux/bpf.h>
#include <linux/types.h>
#include <stdbool.h>
#include <bpf/bpf_helpers.h>

#include "flow.h"

#define FRONT_PAGE 32       // entries that user space reads at once
#define FRONT_ENTRIES 32768 // of both generations, at most
#define FRONT_BUCKETS 8192  // of a generation
#define FRONT_WAYS 4        // places in a bucket
#define FRONT_USED (1U << 31)

struct front_entry {
	struct flow_key key; // direction 0: given out and not used
	struct flow flow;
};

struct front_page {
	struct front_entry entries[FRONT_PAGE];
};

// The entries of generation 0, then those of generation 1, each filled from its beginning. None is freed within a
// generation.
// Key: number of a page. Value: struct front_page. Size: front_entries of each generation. Deleted by: nobody; user space
// resets the index and the state, after the flip.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, FRONT_ENTRIES / FRONT_PAGE);
	__type(key, __u32);
	__type(value, struct front_page);
} front SEC(".maps");

// Places for references to entries. A key's are those of the bucket that its hash says, and it takes the first free one.
struct front_bucket {
	__u32 references[FRONT_WAYS]; // the number of an entry, a tag from its key's hash, and FRONT_USED; or 0
};

// The buckets of generation 0, then those of generation 1.
// Key: number of a bucket. Value: struct front_bucket, written with the generation's lock held. Deleted by: user space
// only, which maps it into its memory, after the flip.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 2 * FRONT_BUCKETS);
	__type(key, __u32);
	__type(value, struct front_bucket);
} front_index SEC(".maps");

struct front_state {
	struct bpf_spin_lock lock; // who finds a flow needs none
	__u32 taken;               // entries given out; more than there are when one has been refused
};

// Key: generation. Value: struct front_state. Reset by user space.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct front_state);
} front_states SEC(".maps");

// Entries of a generation.
const volatile __u32 front_entries = FRONT_ENTRIES / 2;

// Random numbers, so that nobody can choose addresses and ports that collide.
const volatile __u64 hash_secret[sizeof(struct flow_key) / sizeof(__u32) + 1] = {};

// Multilinear-HM (Lemire and Kaser, "Strongly universal string hashing is fast", 2014): whatever two keys are, their hashes
// are two random numbers to who does not know the secret. A multiplication for each eight bytes.
static __always_inline __u32 flow_hash(const struct flow_key *key)
{
	const int words = sizeof(*key) / sizeof(__u32);
	__u64 h = hash_secret[words];
	__u32 w[sizeof(*key) / sizeof(__u32)];

	__builtin_memcpy(w, key, sizeof(w));
	for (int i = 0; i < words; i += 2)
		h += (hash_secret[i] + w[i]) * (hash_secret[i + 1] + w[i + 1]);
	return h >> 32;
}

static __always_inline bool same_key(const struct flow_key *a, const struct flow_key *b)
{
	__u64 x[sizeof(*a) / sizeof(__u64)], y[sizeof(*b) / sizeof(__u64)], different = 0;

	__builtin_memcpy(x, a, sizeof(x));
	__builtin_memcpy(y, b, sizeof(y));
	for (int i = 0; i < sizeof(x) / sizeof(x[0]); i++)
		different |= x[i] ^ y[i];
	return !different;
}

static __always_inline volatile struct front_bucket *front_bucket(__u32 gen, __u32 hash)
{
	__u32 bucket = gen * FRONT_BUCKETS + hash % FRONT_BUCKETS;
	return bpf_map_lookup_elem(&front_index, &bucket);
}

// What the index says of a key with this hash, but for the number of its entry.
static __always_inline __u32 front_reference(__u32 hash)
{
	return FRONT_USED | hash / FRONT_BUCKETS % (FRONT_USED / FRONT_ENTRIES) * FRONT_ENTRIES;
}

static __always_inline struct front_entry *front_entry(__u32 n)
{
	__u32 page = n / FRONT_PAGE;
	struct front_page *p = bpf_map_lookup_elem(&front, &page);
	return p ? &p->entries[n % FRONT_PAGE] : NULL;
}

// Where a flow belongs in its generation.
enum where {
	FRONT,   // it is there
	BACK,    // in the hash table: all its places in the front are others'
	NOWHERE, // it is not in the front and has a place there; once entries have run out it may be in the hash table
};

// Finds a key's place: the first one that is free (NOWHERE), or taken by a flow that may be this one, whose entry is then
// *n (FRONT).
static __always_inline enum where front_probe(const volatile struct front_bucket *b, __u32 hash, __u32 *place, __u32 *n)
{
	__u32 reference = front_reference(hash);

	for (int i = 0; i < FRONT_WAYS; i++) {
		__u32 found = b->references[i];
		*place = i;
		if ((found ^ reference) < FRONT_ENTRIES) {
			// Made of what was read, and of nothing else: so no CPU can read the entry before its reference, and the
			// verifier has no need to know the hash, or it would tell apart all that a key may hold.
			*n = found % FRONT_ENTRIES;
			return FRONT;
		}
		if (!found)
			return NOWHERE;
	}
	return BACK;
}

// Sets *f when it returns FRONT.
static __always_inline enum where front_compare(__u32 n, const struct flow_key *key, struct flow **f)
{
	struct front_entry *e = front_entry(n);
	if (!e || !same_key(&e->key, key))
		return BACK;
	*f = &e->flow;
	return FRONT;
}

static __always_inline enum where front_lookup(__u32 gen, __u32 hash, const struct flow_key *key, struct flow **f)
{
	const volatile struct front_bucket *b = front_bucket(gen, hash);
	__u32 place, n = 0;
	enum where where = b ? front_probe(b, hash, &place, &n) : BACK;
	return where == FRONT ? front_compare(n, key, f) : where;
}

// Whether entries have run out, so that flows went to the hash table that have a place here.
static __always_inline bool front_refuses(__u32 gen)
{
	struct front_state *s = bpf_map_lookup_elem(&front_states, &gen);
	return s && s->taken > front_entries;
}

// Puts a flow into the front that has a place there. Returns NOWHERE when it has done so; FRONT, and sets *other, when
// another CPU was first; BACK when the flow belongs in the hash table.
//
// An entry is taken, filled, and then shown in the index. Once one has been refused to anybody none is shown any more, or a
// flow could come to be both here and in the hash table.
//
// Inlined: of what comes before a call to a function of the same program, the verifier of Linux 6.1 tells everything apart,
// and gives up.
static __always_inline enum where front_insert(__u32 gen, __u32 hash, const struct flow_key *key, const struct flow *f,
					       struct flow **other)
{
	struct front_state *s = bpf_map_lookup_elem(&front_states, &gen);
	volatile struct front_bucket *b = front_bucket(gen, hash);
	__u32 taken, place = 0, n = 0;
	enum where where;

	if (!s || !b)
		return BACK;
	bpf_spin_lock(&s->lock);
	taken = s->taken;
	if (taken < front_entries) {
		s->taken = taken + 1;
		bpf_spin_unlock(&s->lock);
	} else {
		s->taken = front_entries + 1;
		where = front_probe(b, hash, &place, &n);
		bpf_spin_unlock(&s->lock);
		return where == FRONT ? front_compare(n, key, other) : BACK;
	}

	__u32 mine = gen * front_entries + taken;
	struct front_entry *e = front_entry(mine);
	if (!e)
		return BACK;
	e->key = *key;
	e->flow = *f;
	// Programs have no memory barrier. To release a lock and take one is one for writes: whoever sees the reference sees
	// the entry.
	bpf_spin_lock(&s->lock);
	bpf_spin_unlock(&s->lock);

	bpf_spin_lock(&s->lock);
	where = front_probe(b, hash, &place, &n);
	if (where == NOWHERE && s->taken <= front_entries) {
		b->references[place] = front_reference(hash) | mine;
		bpf_spin_unlock(&s->lock);
		return NOWHERE;
	}
	if (s->taken == taken + 1) // nobody took one since
		s->taken = taken;
	else
		e->key.direction = 0;
	bpf_spin_unlock(&s->lock);
	return where == FRONT ? front_compare(n, key, other) : BACK;
}
