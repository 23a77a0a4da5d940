// Package syscall holds the BPF programs that count system calls, compiled, and the Go types of their maps and events. What is
// done with them is the ebpf_syscall receiver's business.
package syscall

// The compiler is Debian's clang-19; its headers come from libbpf-dev and linux-libc-dev.
//go:generate go tool -modfile=../../internal/tools/go.mod bpf2go -go-package syscall -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 -type row -type call_key -type event -type text_event -type loss -type cell -type row_cells -type start -type error_key Syscall syscall.bpf.c -- -O2 -g -mcpu=v3 -Wall -Werror -I/usr/include/x86_64-linux-gnu
