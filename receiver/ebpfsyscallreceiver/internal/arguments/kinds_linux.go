package arguments

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// kind says how a parameter's value becomes text, as strace shows it. Most parameters are ints: the kernel looks at the lower
// 32 bits of the register, and the others may hold anything.
type kind interface {
	show(v uint64) string
}

// kindFunc makes a kind of a function.
type kindFunc func(v uint64) string

func (f kindFunc) show(v uint64) string { return f(v) }

var (
	// number is an int: a file descriptor, a process id.
	number = kindFunc(func(v uint64) string { return strconv.FormatInt(int64(int32(v)), 10) })
	// size is an unsigned long or a 64-bit offset.
	size = kindFunc(func(v uint64) string { return strconv.FormatUint(v, 10) })
	// address is a pointer.
	address = kindFunc(func(v uint64) string {
		if v == 0 {
			return "NULL"
		}
		return hexadecimal(v)
	})
	// directory is a file descriptor, or AT_FDCWD.
	directory = kindFunc(func(v uint64) string {
		if int32(v) == unix.AT_FDCWD {
			return "AT_FDCWD"
		}
		return number(v)
	})
	// owner is a user or group id; -1 leaves it as it is.
	owner = kindFunc(func(v uint64) string {
		if uint32(v) == ^uint32(0) {
			return "-1"
		}
		return strconv.FormatUint(uint64(uint32(v)), 10)
	})
	// mode are the permissions of a file.
	mode = kindFunc(func(v uint64) string {
		if v = uint64(uint32(v)); v != 0 {
			return "0" + strconv.FormatUint(v, 8)
		}
		return "0"
	})
	// mask are bits without names.
	mask   = kindFunc(hexadecimal)
	signal = kindFunc(func(v uint64) string {
		if name := unix.SignalName(unix.Signal(int32(v))); name != "" {
			return name
		}
		return number(v)
	})
	// cloneCall are cloneFlags with the signal that tells of the child's end in the lowest byte.
	cloneCall = kindFunc(func(v uint64) string {
		const signalMask = 0xff
		end := v & signalMask
		if end == 0 {
			return cloneFlags.show(v)
		}
		if v&^signalMask == 0 {
			return signal.show(end)
		}
		return cloneFlags.show(v&^signalMask) + "|" + signal.show(end)
	})
)

// enum is one of several values.
type enum map[uint32]string

func (e enum) show(v uint64) string {
	if name, ok := e[uint32(v)]; ok {
		return name
	}
	return hexadecimal(uint64(uint32(v)))
}

// bits are any of several flags, in the order in which they are shown. What has no name is shown in hexadecimal.
type bits []struct {
	mask uint32
	name string
}

func (b bits) show(v uint64) string { return mixed{flags: b}.show(v) }

// mixed is an enum in the bits of mask, and flags in the others.
type mixed struct {
	values enum
	mask   uint32
	flags  bits
}

func (m mixed) show(v uint64) string {
	rest := uint32(v)
	var names [33]string
	n := 0
	if name, ok := m.values[rest&m.mask]; ok && (m.mask != 0 || rest == 0) {
		names[0], n = name, 1
		rest &^= m.mask
	}
	for _, f := range m.flags {
		if f.mask != 0 && rest&f.mask == f.mask {
			names[n] = f.name
			n++
			rest &^= f.mask
		}
	}
	switch {
	case n == 0 && rest == 0:
		return "0"
	case rest != 0:
		names[n] = hexadecimal(uint64(rest))
		n++
	}
	if n == 1 {
		return names[0]
	}
	return strings.Join(names[:n], "|")
}

func hexadecimal(v uint64) string { return "0x" + strconv.FormatUint(v, 16) }
