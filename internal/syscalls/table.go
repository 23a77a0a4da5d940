package syscalls

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
)

//go:generate go run ./internal/gentable

// Name returns the kernel's name for a call, or its number in decimal where it has none.
func (c Call) Name() string {
	if table := c.ABI.table(); c.Number >= 0 && int(c.Number) < len(table) && table[c.Number] != "" {
		return table[c.Number]
	}
	return strconv.Itoa(int(c.Number))
}

// table returns the names by number.
func (a ABI) table() []string { return names[a.named()] }

// number is the inverse of table.
func (a ABI) number(name string) (int32, bool) {
	number, ok := numbers()[a.named()][name]
	return number, ok
}

// named returns the ABI whose names a has, or the zero value, which has none. The calls of x32 are those of x86_64 with a bit
// set, which Call.Number leaves out; the few that have numbers of their own stay numbers.
func (a ABI) named() ABI {
	switch {
	case a == X32:
		return X86_64
	case int(a) < len(names):
		return a
	}
	return 0
}

// Names returns the names of an ABI's calls by their numbers; numbers that mean nothing are empty.
func (a ABI) Names() []string { return a.table() }

// numbers are those of each table's names. Every call of every record of counts is looked up here; to read the table from its
// start instead was more than half of CountsFrom's time.
var numbers = sync.OnceValue(func() (all [len(names)]map[string]int32) {
	for abi, table := range names {
		all[abi] = make(map[string]int32, len(table))
		for number, name := range table {
			if name != "" {
				all[abi][name] = int32(number)
			}
		}
	}
	return all
})

// ParseCall is the inverse of Call.Name.
func ParseCall(abi ABI, name string) (Call, error) {
	if number, ok := abi.number(name); ok {
		return Call{ABI: abi, Number: number}, nil
	}
	number, err := strconv.ParseInt(name, 10, 32)
	if err != nil {
		return Call{}, fmt.Errorf("system call %q: %s has none of that name; use a name such as openat, or a number", name, abi)
	}
	return Call{ABI: abi, Number: int32(number)}, nil
}

// Known tells whether any ABI has a call of that name.
func Known(name string) bool {
	for _, table := range numbers() {
		if _, ok := table[name]; ok {
			return true
		}
	}
	return false
}

// qualified names a call among those of a node whose own ABI is native.
func (c Call) qualified(native ABI) string {
	if c.ABI == native {
		return c.Name()
	}
	return c.ABI.String() + "/" + c.Name()
}

// parseQualified is the inverse of qualified.
func parseQualified(native ABI, s string) (Call, error) {
	if abi, name, other := strings.Cut(s, "/"); other {
		a, err := ParseABI(abi)
		if err != nil {
			return Call{}, fmt.Errorf("system call %q: %w", s, err)
		}
		return ParseCall(a, name)
	}
	return ParseCall(native, s)
}
