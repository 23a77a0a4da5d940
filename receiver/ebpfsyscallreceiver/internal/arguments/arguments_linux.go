// Package arguments makes readable what a system call was given: which of its parameters matter, and what their values mean.
package arguments

import (
	"encoding/binary"
	"net/netip"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/syscalls"
)

// Memory is what the kernel captured of a call.
type Memory struct {
	Bytes []byte
	// OK is false where it could not be read.
	OK bool
	// Cut tells that there was more.
	Cut bool
}

// Decoder decodes the arguments of one ABI's calls.
type Decoder struct {
	abi    syscalls.ABI
	byCall [][]parameter // by number
}

// New makes a decoder for a native ABI, whose constants are those that this program was built with. That of another decodes
// nothing.
func New(abi syscalls.ABI) *Decoder {
	d := &Decoder{abi: abi}
	if abi == syscalls.X86_64 || abi == syscalls.ARM64 {
		names := abi.Names()
		d.byCall = make([][]parameter, len(names))
		for number, name := range names {
			d.byCall[number] = table[name]
		}
	}
	return d
}

func (d *Decoder) parameters(c syscalls.Call) []parameter {
	if c.ABI != d.abi || c.Number < 0 || int(c.Number) >= len(d.byCall) {
		return nil
	}
	return d.byCall[c.Number]
}

// Capture tells which of a call's parameters, counted from 1, points to memory that is worth reading when the call is made; 0:
// none. It is a string, or, where bytes is true, as many bytes as the parameter after it says.
func (d *Decoder) Capture(c syscalls.Call) (parameter uint8, bytes bool) {
	for i, p := range d.parameters(c) {
		switch p.kind.(type) {
		case text:
			return uint8(i + 1), false
		case socketAddress:
			return uint8(i + 1), true
		}
	}
	return 0, false
}

// Decode returns those arguments of a call that matter, in their order; nil where none does, or nothing is known of the call.
// The bytes of memory are not kept.
func (d *Decoder) Decode(c syscalls.Call, registers *[6]uint64, memory Memory) []syscalls.Argument {
	parameters := d.parameters(c)
	if len(parameters) == 0 {
		return nil
	}
	arguments := make([]syscalls.Argument, 0, len(parameters))
	for i, p := range parameters {
		if p.kind == nil {
			continue
		}
		value := ""
		if reader, ok := p.kind.(memoryKind); ok && memory.OK {
			value = reader.read(memory)
		} else {
			value = p.kind.show(registers[i])
		}
		arguments = append(arguments, syscalls.Argument{Name: p.name, Value: value})
	}
	return arguments
}

// memoryKind is of parameters that are pointers to what the kernel captured. What it did not is shown as an address.
type memoryKind interface {
	read(m Memory) string
}

// text is a string that ends with a zero.
type text struct{}

func (text) show(v uint64) string { return address.show(v) }

func (text) read(m Memory) string {
	value := printable(m.Bytes)
	if m.Cut {
		value += "..."
	}
	return value
}

// printable is b with what would not be seen, or would move a terminal's cursor, as escapes of Go and C.
func printable(b []byte) string {
	plain := true
	for _, c := range b {
		plain = plain && c >= ' ' && c <= '~' && c != '\\'
	}
	if plain {
		return string(b)
	}
	var s strings.Builder
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		switch {
		case r == utf8.RuneError && n == 1:
			s.WriteString(`\x` + strconv.FormatUint(uint64(b[0])|0x100, 16)[1:])
		case r == '\\':
			s.WriteString(`\\`)
		case unicode.IsPrint(r):
			s.WriteRune(r)
		default:
			s.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
		}
		b = b[n:]
	}
	return s.String()
}

// socketAddress is a struct sockaddr.
type socketAddress struct{}

func (socketAddress) show(v uint64) string { return address.show(v) }

// read returns 10.0.0.1:80 or [::1]:80, /run/a.sock or @abstract, or the name of another family.
func (socketAddress) read(m Memory) string {
	b := m.Bytes
	if len(b) < 2 {
		return addressFamilies.show(unix.AF_UNSPEC)
	}
	family := binary.NativeEndian.Uint16(b)
	switch rest := b[2:]; {
	case family == unix.AF_INET && len(rest) >= 6:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(rest[2:6])), binary.BigEndian.Uint16(rest)).String()
	case family == unix.AF_INET6 && len(rest) >= 22:
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte(rest[6:22])), binary.BigEndian.Uint16(rest)).String()
	case family == unix.AF_UNIX && len(rest) > 0 && rest[0] == 0:
		return "@" + printable(rest[1:])
	case family == unix.AF_UNIX && len(rest) > 0:
		path, _, ended := strings.Cut(string(rest), "\x00")
		return text{}.read(Memory{Bytes: []byte(path), Cut: m.Cut && !ended})
	}
	return addressFamilies.show(uint64(family))
}
