// Package cuda holds the BPF programs that count calls of CUDA's libraries and find who maps them, compiled, and the Go types of
// their maps. What is done with them is the gpu receiver's business.
package cuda

// The compiler is Debian's clang-19; its headers come from libbpf-dev and linux-libc-dev.
//go:generate go tool -modfile=../../internal/tools/go.mod bpf2go -go-package cuda -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 -type count_key -type count -type wait -type loss -type mapping Cuda cuda.bpf.c -- -O2 -g -mcpu=v3 -Wall -Werror -I/usr/include/x86_64-linux-gnu
