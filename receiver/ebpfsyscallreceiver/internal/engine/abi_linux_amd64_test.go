package engine

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/syscalls"
	"github.com/orb8/orb8/internal/testutil"
)

// program is machine code that makes system calls and nothing else: no compiler and no runtime has a part in what it calls.
type program struct{ code []byte }

func (p *program) add(code ...byte) { p.code = append(p.code, code...) }

func (p *program) add32(opcode []byte, n uint32) {
	p.code = binary.LittleEndian.AppendUint32(append(p.code, opcode...), n)
}

var (
	viaSyscall = []byte{0x0f, 0x05}
	viaInt80   = []byte{0xcd, 0x80}
)

// repeat calls a number so often.
func (p *program) repeat(how []byte, number, times uint32) {
	p.add32([]byte{0x41, 0xbc}, times) // mov r12d, times
	loop := len(p.code)
	p.add32([]byte{0xb8}, number) // mov eax, number
	p.add(how...)
	p.add(0x41, 0xff, 0xcc)                                 // dec r12d
	p.add32([]byte{0x0f, 0x85}, uint32(loop-len(p.code)-6)) // jnz loop
}

// arguments sets those of an i386 call: ebx, ecx, edx, esi, edi, ebp. The upper halves of the registers are not the call's.
func (p *program) arguments(values [6]uint32) {
	for i, opcode := range []byte{0xbb, 0xb9, 0xba, 0xbe, 0xbf, 0xbd} {
		p.add(0x48, opcode)
		p.code = binary.LittleEndian.AppendUint64(p.code, 0xdead<<32|uint64(values[i])) // mov r64, imm64
	}
}

// write makes it an executable file.
func (p *program) write(t *testing.T) string {
	t.Helper()
	p.add(0x31, 0xff)                          // xor edi, edi
	p.add32([]byte{0xb8}, unix.SYS_EXIT_GROUP) // mov eax, exit_group
	p.add(viaSyscall...)
	const base, headers = 0x400000, 64 + 56
	var file bytes.Buffer
	size := uint64(headers + len(p.code))
	for _, field := range []any{
		[16]byte{0x7f, 'E', 'L', 'F', 2, 1, 1}, uint16(2), uint16(62), uint32(1), // an executable for x86-64
		uint64(base + headers), uint64(64), uint64(0), // entry, program headers, no sections
		uint32(0), uint16(64), uint16(56), uint16(1), uint16(64), uint16(0), uint16(0),
		uint32(1), uint32(5), uint64(0), uint64(base), uint64(base), size, size, uint64(0x1000), // load all of it, read and execute
		p.code,
	} {
		require.NoError(t, binary.Write(&file, binary.LittleEndian, field))
	}
	path := filepath.Join(t.TempDir(), "calls")
	require.NoError(t, os.WriteFile(path, file.Bytes(), 0o700))
	return path
}

func TestEachABIHasItsOwnNumbers(t *testing.T) {
	const x32Bit = 1 << 30
	for name, opts := range map[string]Options{"types": {}, "helpers": {helpers: true}, "latency": {Latency: true}} {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t, opts)
			g := newGroup(t)
			p := &program{}
			p.repeat(viaSyscall, 110, 1000) // getppid
			p.repeat(viaSyscall, x32Bit|110, 200)
			p.repeat(viaSyscall, x32Bit|600, 3)
			p.repeat(viaSyscall, 0xffffffff, 40)
			p.repeat(viaSyscall, 0x80000000|110, 5)
			path := p.write(t)
			require.NoError(t, g.command(t, path).Run())
			calls := map[syscalls.Call]uint64{}
			for call, n := range drained(t, e)[g.id] {
				calls[call] = n.Calls
			}
			minus := func(n uint32) int32 { return int32(n) }
			for call, want := range map[syscalls.Call]uint64{
				{ABI: syscalls.X86_64, Number: 110}: 1000, {ABI: syscalls.X32, Number: 110}: 200, {ABI: syscalls.X32, Number: 600}: 3,
				{ABI: syscalls.X86_64, Number: -1}: 40, {ABI: syscalls.X86_64, Number: minus(0x80000000 | 110)}: 5,
				{ABI: syscalls.X86_64, Number: unix.SYS_EXIT_GROUP}: 1, {ABI: syscalls.X86_64, Number: unix.SYS_EXECVE}: 1,
			} {
				assert.Equal(t, want, calls[call], "%+v", call)
			}
		})
	}
}

// int 0x80 is a call by the i386 convention whatever the program is.
func TestCompatCalls(t *testing.T) {
	policy := func(c syscalls.Call) Policy {
		if c.ABI == syscalls.I386 && c.Number == 64 {
			return Policy{Sampling: 100}
		}
		return Policy{}
	}
	for name, opts := range map[string]Options{"types": {}, "helpers": {helpers: true}, "latency": {Latency: true}} {
		t.Run(name, func(t *testing.T) {
			opts.Policy, opts.RingBufferSize = policy, 1<<20
			e := newEngine(t, opts)
			g := newGroup(t)
			p := &program{}
			p.arguments([6]uint32{1, 2, 3, 4, 5, 6})
			p.repeat(viaInt80, 64, 150) // getppid
			p.repeat(viaInt80, 5000, 7)
			p.repeat(viaSyscall, 64, 3) // semget
			err := g.command(t, p.write(t)).Run()
			testutil.Require(t, "ia32", err == nil, "the kernel takes no 32-bit calls (CONFIG_IA32_EMULATION)")
			c := drained(t, e)[g.id]
			assert.EqualValues(t, 150, c[syscalls.Call{ABI: syscalls.I386, Number: 64}].Calls)
			assert.EqualValues(t, 7, c[syscalls.Call{ABI: syscalls.I386, Number: 5000}].Calls)
			assert.EqualValues(t, 3, c[syscalls.Call{ABI: syscalls.X86_64, Number: 64}].Calls)
			if opts.Latency {
				assert.Equal(t, map[string]uint64{"ENOSYS": 7}, c[syscalls.Call{ABI: syscalls.I386, Number: 5000}].Errors)
			}
			var own []Event
			for _, ev := range e.readAll(t) {
				if ev.CgroupID == g.id {
					own = append(own, ev)
				}
			}
			require.NotEmpty(t, own)
			assert.EqualValues(t, 1, own[0].Sampling)
			assert.Equal(t, [6]uint64{1, 2, 3, 4, 5, 6}, own[0].Args)
			assert.Equal(t, "calls", string(own[0].Comm))
		})
	}
}
