//go:build ignore

// Counts calls of CUDA's libraries into the caller's cgroup, and measures those that wait for the GPU. It changes and delays none.
#include "count.h"
#include "find.h"
#include "kernel.h"

char LICENSE[] SEC("license") = "GPL";

// What a probe is told about the function that it is at, in its cookie: internal/cuda of the gpu receiver writes it.
#define COOKIE_KIND(c) ((c)&0xff)
#define COOKIE_BYTES(c) ((c) >> 8 & 0xff)
// The function is looked at only some of the time; its counts are kept apart from those that are exact.
#define COOKIE_SAMPLED(c) ((c) >> 16 & 1)
#define KIND_SAMPLED 0x80

// Where the bytes of a call are.
enum bytes {
	BYTES_NONE = 0,
	BYTES_ARGUMENT_2 = 2, // to 5
	BYTES_ARGUMENT_3 = 3,
	BYTES_ARGUMENT_4 = 4,
	BYTES_ARGUMENT_5 = 5,
	BYTES_PITCH = 6,   // width and height are the third and the fourth
	BYTES_2D = 7,      // in the struct CUDA_MEMCPY2D that the first points to
	BYTES_3D = 8,      // in the struct CUDA_MEMCPY3D
	BYTES_RUNTIME = 9, // the third; the kind is the fourth, an enum cudaMemcpyKind
};

// As in internal/cuda.
enum kind {
	KIND_HTOH = 8,
	KIND_HTOD = 9,
	KIND_DTOH = 10,
	KIND_DTOD = 11,
	KIND_DEFAULT = 12,
};

// Where cuda.h has the fields of CUDA_MEMCPY2D and CUDA_MEMCPY3D, which are all of 8 bytes as they lie.
#define MEMCPY2D_WORDS 16
#define MEMCPY3D_WORDS 25
#define MEMORY_HOST 1
#define MEMORY_DEVICE 2
#define MEMORY_ARRAY 3

static __always_inline __u32 copied(__u32 from, __u32 to)
{
	bool from_gpu = from == MEMORY_DEVICE || from == MEMORY_ARRAY, to_gpu = to == MEMORY_DEVICE || to == MEMORY_ARRAY;

	if ((!from_gpu && from != MEMORY_HOST) || (!to_gpu && to != MEMORY_HOST))
		return KIND_DEFAULT; // unified: the driver knows
	if (from_gpu)
		return to_gpu ? KIND_DTOD : KIND_DTOH;
	return to_gpu ? KIND_HTOD : KIND_HTOH;
}

// Reads what a struct says of a copy. The caller has just written it, so that it is in memory.
static __always_inline __u64 read_copy(__u64 at, bool solid, __u32 *kind)
{
	__u64 words[MEMCPY3D_WORDS];
	struct loss *l;

	if (solid) {
		if (!bpf_probe_read_user(words, MEMCPY3D_WORDS * 8, (void *)at)) {
			*kind = copied(words[4], words[15]);
			return words[22] * words[23] * words[24];
		}
	} else if (!bpf_probe_read_user(words, MEMCPY2D_WORDS * 8, (void *)at)) {
		*kind = copied(words[2], words[9]);
		return words[14] * words[15];
	}
	l = loss();
	if (l)
		__sync_fetch_and_add(&l->unreadable, 1);
	return 0;
}

static __always_inline __u64 bytes_of(const struct registers *r, __u32 where, __u32 *kind)
{
	switch (where) {
	case BYTES_ARGUMENT_2:
		return ARGUMENT_2(r);
	case BYTES_ARGUMENT_3:
		return ARGUMENT_3(r);
	case BYTES_ARGUMENT_4:
		return ARGUMENT_4(r);
	case BYTES_ARGUMENT_5:
		return ARGUMENT_5(r);
	case BYTES_PITCH:
		return ARGUMENT_3(r) * ARGUMENT_4(r);
	case BYTES_2D:
		return read_copy(ARGUMENT_1(r), false, kind);
	case BYTES_3D:
		return read_copy(ARGUMENT_1(r), true, kind);
	case BYTES_RUNTIME: {
		__u32 direction = ARGUMENT_4(r);
		*kind = direction < KIND_DEFAULT - KIND_HTOH ? KIND_HTOH + direction : KIND_DEFAULT;
		return ARGUMENT_3(r);
	}
	}
	return 0;
}

static __always_inline __u32 kind_of(__u64 cookie, __u32 kind)
{
	return COOKIE_SAMPLED(cookie) ? kind | KIND_SAMPLED : kind;
}

// At functions of which only calls and bytes are counted.
SEC("uprobe.multi")
int call(struct registers *r)
{
	__u64 cookie = bpf_get_attach_cookie(r);
	__u32 kind = COOKIE_KIND(cookie);
	__u64 bytes = bytes_of(r, COOKIE_BYTES(cookie), &kind);

	count_add(kind_of(cookie, kind), bytes);
	return 0;
}

// A wait that has begun.
struct start {
	__u64 ns;
	__u64 cgroup;
};

// Key: thread. Value: struct start. Size: as many threads as wait at once, at most. Deleted at the function's return. Threads that are
// killed while they wait leave theirs, which the newer ones push out in time.
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, struct start);
} starts SEC(".maps");

// At functions that wait.
SEC("uprobe.multi")
int wait_begin(struct registers *r)
{
	__u64 cookie = bpf_get_attach_cookie(r), thread = bpf_get_current_pid_tgid();
	struct start s = {.cgroup = bpf_get_current_cgroup_id()};

	count_add(kind_of(cookie, COOKIE_KIND(cookie)), 0);
	s.ns = bpf_ktime_get_ns(); // last: counting is not waiting
	bpf_map_update_elem(&starts, &thread, &s, BPF_ANY);
	return 0;
}

// At their return.
SEC("uretprobe.multi")
int wait_end(struct registers *r)
{
	__u64 now = bpf_ktime_get_ns(), cookie = bpf_get_attach_cookie(r), thread = bpf_get_current_pid_tgid();

	struct start *s = bpf_map_lookup_elem(&starts, &thread);
	if (!s) {
		unmeasured();
		return 0;
	}
	wait_add(s->cgroup, kind_of(cookie, COOKIE_KIND(cookie)), now - s->ns);
	bpf_map_delete_elem(&starts, &thread);
	return 0;
}
