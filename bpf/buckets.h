// Histograms of times whose buckets grow by powers of two.
#pragma once

#include <linux/types.h>
#include <bpf/bpf_helpers.h>

// The smallest i such that ns is at most 1 << (shift + i), or the last of the buckets, of which there are at most 32.
static __always_inline __u32 bucket_of(__u64 ns, __u32 shift, __u32 buckets)
{
	__u32 i = 0;

	if (ns <= 1ULL << shift)
		return 0;
	ns = (ns - 1) >> shift;
	if (ns >> buckets)
		return buckets - 1;
	__u32 v = ns;
	if (v >> 16) {
		i += 16;
		v >>= 16;
	}
	if (v >> 8) {
		i += 8;
		v >>= 8;
	}
	if (v >> 4) {
		i += 4;
		v >>= 4;
	}
	if (v >> 2) {
		i += 2;
		v >>= 2;
	}
	i += v >> 1; // v is 1, 2 or 3: the number of its bits is one more
	i += 1;
	return i < buckets ? i : buckets - 1;
}
