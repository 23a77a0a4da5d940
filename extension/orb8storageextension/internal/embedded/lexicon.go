package embedded

import (
	"math/rand/v2"
	"slices"
	"sync"
)

// lexiconBytes bounds the memory of words of indexes that are kept for the next query. A block of 2,000 containers has a megabyte,
// beside the names themselves, which all blocks share.
const lexiconBytes = 64 << 20

// lexicon keeps the words of indexes, up to a number of bytes. Which of them go is chance: queries ask all blocks in turn, so that those
// of the one that was asked longest ago are the next to be wanted.
type lexicon struct {
	limit uint64

	mu    sync.Mutex
	bytes uint64
	known []known
	// shared are the strings of all, sharedBytes what they take: most blocks are about the same containers.
	shared      map[string]string
	sharedBytes uint64
}

type known struct {
	index *index
	words *words
	bytes uint64
}

// of returns the words of an index.
func (l *lexicon) of(x *index) (*words, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if at := slices.IndexFunc(l.known, func(k known) bool { return k.index == x }); at >= 0 {
		return l.known[at].words, nil
	}
	w, err := x.decodeWords(l.share)
	if err != nil {
		return nil, err
	}
	size := uint64(len(w.identities))*identityBytes + uint64(len(w.strings))*stringBytes
	l.known, l.bytes = append(l.known, known{x, &w, size}), l.bytes+size
	if l.sharedBytes > l.limit/2 {
		// Most are of containers that are gone.
		l.known, l.bytes, l.shared, l.sharedBytes = nil, 0, nil, 0
	}
	for l.bytes+l.sharedBytes > l.limit && len(l.known) > 1 {
		at := rand.IntN(len(l.known) - 1)
		l.bytes -= l.known[at].bytes
		l.known = slices.Delete(l.known, at, at+1)
	}
	return &w, nil
}

// share returns a string that is the same for all who ask for it.
func (l *lexicon) share(b []byte) string {
	s, known := l.shared[string(b)]
	if !known {
		if l.shared == nil {
			l.shared = map[string]string{}
		}
		s = string(b)
		l.shared[s] = s
		// The map has it twice.
		l.sharedBytes += uint64(len(s)) + 2*stringBytes
	}
	return s
}

// forget drops the words of an index that is closed.
func (l *lexicon) forget(x *index) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.known = slices.DeleteFunc(l.known, func(k known) bool {
		if k.index == x {
			l.bytes -= k.bytes
		}
		return k.index == x
	})
}
