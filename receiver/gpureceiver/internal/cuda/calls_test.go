package cuda

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"encoding/hex"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestLibraryOf(t *testing.T) {
	for name, want := range map[string]library{
		"libcuda.so": driver, "libcuda.so.1": driver, "libcuda.so.580.65.06": driver,
		"libcudart.so.12": runtime, "libcudart-d0da41ae.so.11.0": runtime, "libcudart.so.12.8.90": runtime,
		"libcudadebugger.so.1": noLibrary, "libcudnn.so.9": noLibrary, "libcuda": noLibrary, "libcuda.txt": noLibrary, "": noLibrary,
	} {
		assert.Equal(t, want, libraryOf(name), name)
	}
}

func TestFunctionsAreNamedOnce(t *testing.T) {
	for _, l := range []library{driver, runtime} {
		names := map[string]bool{}
		for _, f := range l.functions() {
			assert.False(t, names[f.name], f.name)
			names[f.name] = true
		}
	}
}

func TestCountScales(t *testing.T) {
	c := Count{Calls: 1, Bytes: 2, Wait: time.Second, Buckets: [Buckets]uint64{3: 4}}
	c.scale(10)
	c.Add(&Count{Calls: 1, Buckets: [Buckets]uint64{3: 1}})
	assert.Equal(t, Count{Calls: 11, Bytes: 20, Wait: 10 * time.Second, Buckets: [Buckets]uint64{3: 41}}, c)
}

func TestPlace(t *testing.T) {
	tests := []struct {
		name, code string
		machine    elf.Machine
		keepsStack bool
		at         uint64
		stepped    bool
	}{
		{name: "push rbp", code: "55 48 89 e5"},
		{name: "push r15", code: "41 57"},
		{name: "endbr64; push", code: "f3 0f 1e fa 55", at: 4},
		{name: "endbr64; push, for a return", code: "f3 0f 1e fa 55", at: 4, keepsStack: true},
		{name: "endbr64; sub; push", code: "f3 0f 1e fa 48 83 ec 18 53", at: 8},
		{name: "sub of a large frame; push", code: "48 81 ec 00 10 00 00 53", at: 7},
		{name: "sub; push, for a return", code: "48 83 ec 18 53", keepsStack: true, stepped: true},
		{name: "mov rsp to r11; push", code: "49 89 e3 55", at: 3},
		{name: "mov rsp to rax, the other way; push", code: "48 8b c4 55", at: 3},
		{name: "mov r8 to rbx; push", code: "4c 89 c3 55", at: 3},
		{name: "mov rax to r15; push", code: "49 89 c7 55", at: 3},
		{name: "mov over an argument", code: "48 89 c7 55", stepped: true},
		{name: "mov over r8", code: "49 89 c0 55", stepped: true},
		{name: "mov over an argument, the other way", code: "4c 8b c0 55", stepped: true},
		{name: "mov to memory", code: "48 89 5c 24 08 57", stepped: true},
		{name: "clear eax; push", code: "31 c0 53", at: 2},
		{name: "nop", code: "90"},
		{name: "nop of two bytes; push", code: "66 90 55", at: 2},
		{name: "jmp", code: "e9 01 02 03 04"},
		{name: "endbr64; jmp", code: "f3 0f 1e fa e9 01 02 03 04", at: 4},
		{name: "endbr64; jne", code: "f3 0f 1e fa 0f 85 01 02 03 04", at: 4},
		{name: "a call further down", code: "48 83 ec 08 e8 01 02 03 04", stepped: true},
		{name: "jmp through memory", code: "ff 25 01 02 03 04", stepped: true},
		{name: "cut off", code: "48 83 ec", stepped: true},
		{name: "cut off after", code: "f3 0f 1e fa", stepped: true},
		{name: "nothing", stepped: true},
		{name: "test", code: "48 85 ff 55", stepped: true},
		{name: "b", machine: elf.EM_AARCH64, code: "01 00 00 14"},
		{name: "bti c; adrp", machine: elf.EM_AARCH64, code: "5f 24 03 d5 00 00 00 90", at: 4},
		{name: "stp", machine: elf.EM_AARCH64, code: "fd 7b bf a9", stepped: true},
		{name: "cut off", machine: elf.EM_AARCH64, code: "fd 7b", stepped: true},
		{name: "another machine", machine: elf.EM_RISCV, code: "55", stepped: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			code, err := hex.DecodeString(strings.ReplaceAll(tt.code, " ", ""))
			require.NoError(t, err)
			machine := tt.machine
			if machine == elf.EM_NONE {
				machine = elf.EM_X86_64
			}
			at, stepped := place(machine, code, tt.keepsStack)
			assert.Equal(t, tt.stepped, stepped)
			assert.Equal(t, tt.at, at)
		})
	}
}

// library64 makes an ELF file of one function.
func library64(t testing.TB, change func(*elf.Header64, []elf.Section64, []elf.Prog64)) []byte {
	t.Helper()
	const names = "\x00cuLaunchKernel\x00"
	sections := []elf.Section64{{}, {Type: uint32(elf.SHT_DYNSYM), Link: 2, Off: 400, Size: elf.Sym64Size}, {Off: 450, Size: uint64(len(names))}}
	segments := []elf.Prog64{{Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_X), Vaddr: 0x2000, Off: 0x1000, Filesz: 0x100}}
	h := elf.Header64{Machine: uint16(elf.EM_X86_64), Shoff: 64, Shentsize: 64, Shnum: uint16(len(sections)), Phoff: 300, Phentsize: 56, Phnum: 1}
	copy(h.Ident[:], elf.ELFMAG+string([]byte{byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB)}))
	change(&h, sections, segments)
	file := make([]byte, 500)
	for at, part := range map[int]any{0: h, 64: sections, 300: segments, 450: []byte(names),
		400: elf.Sym64{Name: 1, Info: byte(elf.STT_FUNC), Shndx: 7, Value: 0x2010}} {
		var b bytes.Buffer
		require.NoError(t, binary.Write(&b, binary.LittleEndian, part))
		copy(file[at:], b.Bytes())
	}
	return file
}

func TestReadSymbols(t *testing.T) {
	wanted := driver.functions()
	s, err := readSymbols(bytes.NewReader(library64(t, func(*elf.Header64, []elf.Section64, []elf.Prog64) {})), wanted)
	require.NoError(t, err)
	assert.Equal(t, &symbols{elf.EM_X86_64, map[string]uint64{"cuLaunchKernel": 0x1010}}, s)

	for want, change := range map[string]func(*elf.Header64, []elf.Section64, []elf.Prog64){
		"not an ELF file":                     func(h *elf.Header64, _ []elf.Section64, _ []elf.Prog64) { h.Ident[0] = 0 },
		"not a 64-bit little-endian ELF file": func(h *elf.Header64, _ []elf.Section64, _ []elf.Prog64) { h.Ident[elf.EI_CLASS] = 1 },
		"are not what a library has":          func(h *elf.Header64, _ []elf.Section64, _ []elf.Prog64) { h.Shnum = 60000 },
		"cannot read the sections":            func(h *elf.Header64, _ []elf.Section64, _ []elf.Prog64) { h.Shoff = 1 << 63 },
		"cannot read the segments":            func(h *elf.Header64, _ []elf.Section64, _ []elf.Prog64) { h.Phoff = 490 },
		"are too many":                        func(_ *elf.Header64, s []elf.Section64, _ []elf.Prog64) { s[1].Size = 1 << 40 },
		"with names of":                       func(_ *elf.Header64, s []elf.Section64, _ []elf.Prog64) { s[2].Size = 1 << 40 },
		"names are in section 9 of 3":         func(_ *elf.Header64, s []elf.Section64, _ []elf.Prog64) { s[1].Link = 9 },
		"cannot read the symbols:":            func(_ *elf.Header64, s []elf.Section64, _ []elf.Prog64) { s[1].Off = 1 << 30 },
	} {
		_, err := readSymbols(bytes.NewReader(library64(t, change)), wanted)
		assert.ErrorContains(t, err, want)
	}
	s, err = readSymbols(bytes.NewReader(library64(t, func(_ *elf.Header64, _ []elf.Section64, p []elf.Prog64) { p[0].Flags = 0 })), wanted)
	require.NoError(t, err)
	assert.Empty(t, s.offsets, "it is no code")
}

// FuzzReadSymbols holds that no file makes the reader fail otherwise than with an error, or find a function outside of a segment's file.
func FuzzReadSymbols(f *testing.F) {
	f.Add(library64(f, func(*elf.Header64, []elf.Section64, []elf.Prog64) {}))
	if self, err := os.ReadFile("/proc/self/exe"); err == nil {
		f.Add(self[:min(len(self), 4096)])
	}
	wanted := driver.functions()
	f.Fuzz(func(t *testing.T, file []byte) {
		s, err := readSymbols(bytes.NewReader(file), wanted)
		if err != nil {
			return
		}
		for name := range s.offsets {
			assert.Contains(t, string(file), name)
		}
	})
}

func FuzzPlace(f *testing.F) {
	f.Add([]byte(endbr64+"\x48\x83\xec\x18\x53"), true)
	f.Fuzz(func(t *testing.T, code []byte, keepsStack bool) {
		for _, machine := range []elf.Machine{elf.EM_X86_64, elf.EM_AARCH64} {
			at, stepped := place(machine, code, keepsStack)
			if stepped {
				assert.Zero(t, at)
			} else {
				assert.Less(t, at, uint64(len(code)))
			}
		}
	})
}
