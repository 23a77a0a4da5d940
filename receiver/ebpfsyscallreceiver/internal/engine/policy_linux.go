package engine

import (
	"fmt"
	"runtime"

	bpf "github.com/orb8/orb8/bpf/syscall"
	"github.com/orb8/orb8/internal/syscalls"
)

// rowNumbers is how many numbers a row counts: 0 to rowNumbers-1.
const rowNumbers = len(bpf.SyscallRow{}.Calls)

// abis are this machine's, in the order of the kernel side's table.
func abis() []syscalls.ABI {
	if runtime.GOARCH == "arm64" {
		return []syscalls.ABI{syscalls.ARM64, syscalls.ARM}
	}
	return []syscalls.ABI{syscalls.X86_64, syscalls.I386, syscalls.X32}
}

// encodePolicies returns the table policies of bpf/syscall/event.h.
func encodePolicies(policy func(syscalls.Call) Policy) ([]uint32, error) {
	const maxSampling, maxText = 1<<24 - 1, 6
	table := make([]uint32, 0, len(abis())*(rowNumbers+1))
	for _, abi := range abis() {
		for n := range rowNumbers + 1 {
			call := syscalls.Call{ABI: abi, Number: int32(n)}
			if n == rowNumbers {
				call.Number = -1
			}
			var p Policy
			if policy != nil {
				p = policy(call)
			}
			if last := int(p.Text); p.Sampling > maxSampling || last > maxText || p.Bytes && last == maxText {
				return nil, fmt.Errorf("policy of %s: sampling %d, parameter %d: use at most 1 in %d, of %d parameters, of which the last holds no pointer to bytes",
					call.Name(), p.Sampling, p.Text, maxSampling, maxText)
			}
			e := p.Sampling | uint32(p.Text)<<24
			if p.Bytes {
				e |= 1 << 27
			}
			if p.Always {
				e |= 1 << 28
			}
			table = append(table, e)
		}
	}
	return table, nil
}
