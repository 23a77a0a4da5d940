package kubernetes

import "net/netip"

// ranges is a set of address ranges, each as often as it was added.
type ranges struct {
	prefixes map[netip.Prefix]int
	// bits is how many prefixes have each length: there are few lengths, and so few look-ups.
	bits map[int]int
}

func newRanges() ranges {
	return ranges{prefixes: map[netip.Prefix]int{}, bits: map[int]int{}}
}

func (r *ranges) add(p netip.Prefix) {
	if r.prefixes[p]++; r.prefixes[p] == 1 {
		r.bits[p.Bits()]++
	}
}

func (r *ranges) remove(p netip.Prefix) {
	if r.prefixes[p]--; r.prefixes[p] > 0 {
		return
	}
	delete(r.prefixes, p)
	if r.bits[p.Bits()]--; r.bits[p.Bits()] == 0 {
		delete(r.bits, p.Bits())
	}
}

func (r *ranges) contains(addr netip.Addr) bool {
	for bits := range r.bits {
		if p, err := addr.Prefix(bits); err == nil && r.prefixes[p] > 0 {
			return true
		}
	}
	return false
}

// around returns the range in which another pod's address is likely to be: where networks give nodes no ranges, they give
// pods addresses one by one.
func around(addr netip.Addr) netip.Prefix {
	bits := 24
	if addr.Is6() {
		bits = 64
	}
	p, _ := addr.Prefix(bits) // fails for no address of that family
	return p
}
