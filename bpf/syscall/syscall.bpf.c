//go:build ignore

// Counts every system call into its cgroup, tells of some, and measures them if asked. It changes and delays none.
#include "count.h"
#include "event.h"
#include "kernel.h"
#include "latency.h"

char LICENSE[] SEC("license") = "GPL";

SEC("raw_tp/sys_enter")
int sys_enter(struct bpf_raw_tracepoint_args *ctx)
{
	__u32 zero = 0, before;
	struct task_struct *task = current_task();
	struct caller c = caller_of(task, ctx->args[1]);
	struct cpu *cpu = bpf_map_lookup_elem(&cpus, &zero);
	if (!cpu)
		return 0;
	__u32 n = row_of(cpu, c.key);
	struct row *row = bpf_map_lookup_elem(&rows, &n);
	if (row && c.number < ROW_NUMBERS) {
		before = row->calls[c.number]++;
		if (before == 0xffffffff)
			overflow_add(c.key, c.number, 1ULL << 32);
	} else {
		before = overflow_add(c.key, c.number, 1);
	}
	if (events_enabled)
		event_consider((const void *)ctx->args[0], c, before);
	if (latency_enabled)
		latency_begin(task, ctx->args[0], c);
	return 0;
}

SEC("raw_tp/sys_exit")
int sys_exit(struct bpf_raw_tracepoint_args *ctx)
{
	latency_end(ctx->args[0], ctx->args[1]);
	return 0;
}

// Run once by user space as a test run, to learn its own process id in the first pid namespace: inside a container
// getpid() says another.
__u32 own_pid = 0;

SEC("raw_tp")
int whoami(void *ctx)
{
	own_pid = bpf_get_current_pid_tgid() >> 32;
	return 0;
}
