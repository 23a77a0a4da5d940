package flowmetricsconnector

import (
	"hash/maphash"
	"math"
)

// sketchBits is 64 KiB of them: an estimate has a standard error of about 1 % up to eight times as many keys.
const sketchBits = 1 << 19

// sketch estimates how many different keys it was given, in memory that does not grow with them: each sets a bit by its
// hash, and how many are still unset tells how many keys there were (linear counting).
type sketch struct {
	seed maphash.Seed
	bits []uint64
	set  int
}

func newSketch() *sketch {
	return &sketch{seed: maphash.MakeSeed(), bits: make([]uint64, sketchBits/64)}
}

func (s *sketch) add(k *key) {
	var h maphash.Hash
	h.SetSeed(s.seed)
	for _, part := range [...]string{k.source.namespace, k.source.name, k.destination.namespace, k.destination.name} {
		h.WriteString(part)
		h.WriteByte(0)
	}
	h.WriteByte(byte(k.direction))
	h.WriteByte(byte(k.transport))
	bit := h.Sum64() % sketchBits
	if mask := uint64(1) << (bit % 64); s.bits[bit/64]&mask == 0 {
		s.bits[bit/64] |= mask
		s.set++
	}
}

// estimate returns how many different keys there were; when no bit is left, the most that it can tell.
func (s *sketch) estimate() int64 {
	unset := max(sketchBits-s.set, 1)
	return int64(math.Round(sketchBits * math.Log(float64(sketchBits)/float64(unset))))
}
