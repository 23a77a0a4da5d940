package cuda

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
)

// prologueBytes is how much of a function's code is looked at.
const prologueBytes = 32

// place finds where in a function a probe costs least, which is at an instruction that the kernel emulates: at any other it has the
// caller execute a copy of it and trap again, which takes ten times as long. From the function's first instruction on it passes
// over such as leave the arguments where they are. stepped is true where it finds none: then at is 0.
//
// keepsStack asks for a place where the return address is still on top of the stack, as a probe of the return needs it.
func place(machine elf.Machine, code []byte, keepsStack bool) (at uint64, stepped bool) {
	switch machine {
	case elf.EM_X86_64:
		return placeX86(code, keepsStack)
	case elf.EM_AARCH64:
		return placeARM64(code)
	}
	return 0, true
}

// placeX86 knows the beginnings that compilers make. What the kernel emulates is in arch/x86/kernel/uprobes.c: branch_setup_xol_ops
// and push_setup_xol_ops. Linux 5.10 does so much; newer ones more.
func placeX86(code []byte, keepsStack bool) (uint64, bool) {
	first := true // so far nothing but endbr64 was passed over
	for rest := code; len(rest) > 0; {
		if isPush(rest) || first && isEmulatedBranch(rest) {
			return uint64(len(code) - len(rest)), false
		}
		n := passX86(rest, keepsStack)
		if n == 0 || n > len(rest) {
			break
		}
		first = first && bytes.HasPrefix(rest, []byte(endbr64))
		rest = rest[n:]
	}
	return 0, true
}

func isPush(c []byte) bool {
	return c[0]&0xf8 == 0x50 || c[0] == 0x41 && len(c) > 1 && c[1]&0xf8 == 0x50
}

// isEmulatedBranch is true of nop, call, jmp and jcc. Further down in a function they may be in a loop, and run more than once a call.
func isEmulatedBranch(c []byte) bool {
	switch {
	case c[0] == 0x90, c[0] == 0xe8, c[0] == 0xe9, c[0] == 0xeb:
		return true
	case c[0]&0xf0 == 0x70:
		return true
	}
	return c[0] == 0x0f && len(c) > 1 && c[1]&0xf0 == 0x80
}

const endbr64 = "\xf3\x0f\x1e\xfa"

// passX86 returns the length of an instruction that leaves the arguments alone, or 0.
func passX86(c []byte, keepsStack bool) int {
	switch {
	case bytes.HasPrefix(c, []byte(endbr64)):
		return len(endbr64)
	case !keepsStack && bytes.HasPrefix(c, []byte{0x48, 0x83, 0xec}): // sub $n,%rsp
		return 4
	case !keepsStack && bytes.HasPrefix(c, []byte{0x48, 0x81, 0xec}):
		return 7
	case bytes.HasPrefix(c, []byte{0x66, 0x90}): // nop of two bytes
		return 2
	case len(c) >= 3 && c[0]&0xf8 == 0x48 && c[1] == 0x89 && c[2] >= 0xc0: // mov of one register to another
		to := c[2]&7 | c[0]&1<<3
		if isSpare(to) {
			return 3
		}
	case len(c) >= 3 && c[0]&0xf8 == 0x48 && c[1] == 0x8b && c[2] >= 0xc0: // the same, written the other way
		to := c[2]>>3&7 | c[0]&4<<1
		if isSpare(to) {
			return 3
		}
	case c[0] == 0x31 && len(c) > 1 && c[1] == 0xc0: // xor %eax,%eax
		return 2
	}
	return 0
}

// isSpare is true of registers that neither hold an argument nor are the stack's, by their numbers: rax, rbx, r10 to r15.
func isSpare(register byte) bool {
	return register == 0 || register == 3 || register >= 10 && register <= 15
}

// placeARM64 finds little: compilers begin with what saves registers, which the kernel does not emulate. What it does is in
// arch/arm64/kernel/probes/decode-insn.c: branches, and adr, adrp and ldr of what is near.
func placeARM64(code []byte) (uint64, bool) {
	const size = 4
	for at := uint64(0); len(code) >= size; at, code = at+size, code[size:] {
		i := binary.LittleEndian.Uint32(code)
		switch {
		case i&0x7c000000 == 0x14000000, // b, bl
			i&0xff000010 == 0x54000000, // b.cond
			i&0x7e000000 == 0x34000000, // cbz, cbnz
			i&0x7e000000 == 0x36000000, // tbz, tbnz
			i&0x1f000000 == 0x10000000, // adr, adrp
			i&0xbf000000 == 0x18000000: // ldr of a literal
			return at, false
		case i != 0xd503245f: // bti c
			return 0, true
		}
	}
	return 0, true
}
