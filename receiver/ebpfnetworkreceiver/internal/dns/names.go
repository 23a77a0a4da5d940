package dns

import (
	"net/netip"
	"strings"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/orb8/orb8/internal/flow"
)

const (
	// maxNames bounds the addresses that have a name, over all askers.
	maxNames = 16384
	// minTTL is how long an answer names its address at least: a client connects a moment after it has the answer,
	// however short that may be kept.
	minTTL = 30 * time.Second
	// maxSpells is how many names an address keeps at a time, the latest.
	maxSpells = 4
)

// Asker is who looks names up. What one asker was told names nobody else's flows.
type Asker struct {
	CgroupID uint64
	// Addr is the asker's address where packets are seen at interfaces, and the zero Addr where at sockets: there the
	// cgroup says it all, and a process asks from another address than it connects from.
	Addr netip.Addr
}

type namedAddress struct {
	asker Asker
	addr  netip.Addr
}

// spell is a time in which an address goes by a name. Times are CLOCK_MONOTONIC, in nanoseconds.
type spell struct {
	name        string
	from, until int64
}

// names knows by which name each asker knows an address: the name that was asked for, not the last of its aliases.
type names struct {
	spells *simplelru.LRU[namedAddress, []spell]
}

func newNames() names {
	// It fails only for a size that is not positive.
	spells, _ := simplelru.NewLRU[namedAddress, []spell](maxNames, nil)
	return names{spells}
}

// learn takes the answers to a question, whose name is in lower case.
func (n *names) learn(asker Asker, name string, answers []flow.Answer, at int64) {
	aliases := aliasesOf(name, answers)
	for _, a := range answers {
		if a.Type != "A" && a.Type != "AAAA" || !aliases[strings.ToLower(a.Name)] {
			continue
		}
		addr, err := netip.ParseAddr(a.Data)
		if err != nil {
			continue
		}
		key := namedAddress{asker, addr.Unmap()}
		old, _ := n.spells.Get(key)
		old = old[:min(len(old), maxSpells-1)]
		latest := spell{name, at, at + int64(max(a.TTL, minTTL))}
		n.spells.Add(key, append([]spell{latest}, old...))
	}
}

// aliasesOf follows CNAMEs, which may come in any order: the answer's own order is only a custom.
func aliasesOf(name string, answers []flow.Answer) map[string]bool {
	aliases := map[string]bool{name: true}
	for known := 0; known < len(aliases); {
		known = len(aliases)
		for _, a := range answers {
			if a.Type == "CNAME" && aliases[strings.ToLower(a.Name)] {
				aliases[strings.ToLower(a.Data)] = true
			}
		}
	}
	return aliases
}

// lookup returns the name that the asker last had for the address at that instant; empty: none.
func (n *names) lookup(asker Asker, addr netip.Addr, at int64) string {
	spells, _ := n.spells.Get(namedAddress{asker, addr})
	for _, s := range spells {
		if s.from <= at && at <= s.until {
			return s.name
		}
	}
	return ""
}
