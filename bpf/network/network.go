// Package network holds the BPF programs of the flow engine, compiled, and the Go types of their maps and events.
// What is done with them is the ebpf_network receiver's business.
package network

// The compiler is Debian's clang-19; its headers come from libbpf-dev and linux-libc-dev.
//go:generate go tool -modfile=../../internal/tools/go.mod bpf2go -go-package network -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 -type flow_key -type flow -type event -type dns_event -type loss -type seen -type event_kind -type interface Network network.bpf.c -- -O2 -g -mcpu=v3 -Wall -Werror -I/usr/include/x86_64-linux-gnu
//go:generate go tool -modfile=../../internal/tools/go.mod bpf2go -go-package network -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 -type owner Owner owner.bpf.c -- -O2 -g -mcpu=v3 -Wall -Werror -I/usr/include/x86_64-linux-gnu
//go:generate go tool -modfile=../../internal/tools/go.mod bpf2go -go-package network -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 -type drop_key Drops drops.bpf.c -- -O2 -g -mcpu=v3 -Wall -Werror -I/usr/include/x86_64-linux-gnu
