package dns

import "encoding/binary"

const (
	// maxMessage is how much of a message in a stream is kept; of a longer one the rest is skipped.
	maxMessage = 4096
	// maxHeld is how many segments wait for one that comes late.
	maxHeld = 8
	// maxDistance is how far in bytes a segment may be from its turn. One that is farther is of another connection between
	// the same ports.
	maxDistance = 1 << 20
	// prefixBytes is the length in front of each message (RFC 1035, 4.2.2).
	prefixBytes = 2
)

// segment is a piece of a stream: payload is the beginning of length bytes, the rest was not captured.
type segment struct {
	seq     uint32
	length  int
	payload []byte
}

// stream cuts one direction of a TCP connection into messages. It takes the first segment that it is given for the
// beginning of a message.
type stream struct {
	started bool
	next    uint32
	held    []segment
	// prefix is the length of the message, as far as it is there, and rest what is still to come of it.
	prefix []byte
	rest   int
	// message is what is there of the message; holed says that some of it was not captured.
	message []byte
	holed   bool
}

// add takes a segment and yields the messages that it completes. It returns false when the stream cannot be followed any
// longer: too much of it is missing.
func (s *stream) add(seg segment, yield func(message []byte, whole bool)) bool {
	// Sequence numbers wrap: what counts is their distance.
	distance := int32(seg.seq - s.next)
	if !s.started || distance > maxDistance || distance < -maxDistance {
		*s = stream{started: true, next: seg.seq}
		distance = 0
	}
	if distance > 0 {
		if len(s.held) == maxHeld {
			return false
		}
		seg.payload = append([]byte(nil), seg.payload...)
		s.held = append(s.held, seg)
		return true
	}
	for {
		if !s.take(seg, yield) {
			return false
		}
		i := s.ready()
		if i < 0 {
			return true
		}
		seg = s.held[i]
		s.held = append(s.held[:i], s.held[i+1:]...)
	}
}

// ready returns a held segment whose turn it is, or -1.
func (s *stream) ready() int {
	for i := range s.held {
		if int32(s.held[i].seq-s.next) <= 0 {
			return i
		}
	}
	return -1
}

// take reads a segment that begins at or before s.next.
func (s *stream) take(seg segment, yield func([]byte, bool)) bool {
	seen := int(s.next - seg.seq)
	if seen >= seg.length {
		return true // sent again
	}
	payload, missing := seg.payload, seg.length-len(seg.payload)
	if seen <= len(payload) {
		payload = payload[seen:]
	} else {
		missing -= seen - len(payload)
		payload = nil
	}
	s.next = seg.seq + uint32(seg.length)
	for len(payload) > 0 {
		payload = s.fill(payload, yield)
	}
	return s.skip(missing, yield)
}

// fill takes what belongs to the current message, and returns the rest.
func (s *stream) fill(payload []byte, yield func([]byte, bool)) []byte {
	if len(s.prefix) < prefixBytes {
		s.prefix = append(s.prefix, payload[0])
		if len(s.prefix) == prefixBytes {
			s.rest = int(binary.BigEndian.Uint16(s.prefix))
			s.finish(yield)
		}
		return payload[1:]
	}
	n := min(s.rest, len(payload))
	kept := n
	if s.holed {
		kept = 0
	} else if room := maxMessage - len(s.message); kept > room {
		kept, s.holed = room, true
	}
	s.message = append(s.message, payload[:kept]...)
	s.rest -= n
	s.finish(yield)
	return payload[n:]
}

// skip passes over bytes that were not captured. Where they hold the length of a message, all is lost.
func (s *stream) skip(missing int, yield func([]byte, bool)) bool {
	if missing == 0 {
		return true
	}
	if len(s.prefix) < prefixBytes || missing > s.rest {
		return false
	}
	s.holed = true
	s.rest -= missing
	s.finish(yield)
	return true
}

// finish yields the message if nothing of it is to come.
func (s *stream) finish(yield func([]byte, bool)) {
	if s.rest > 0 {
		return
	}
	if len(s.message) > 0 {
		yield(s.message, !s.holed)
	}
	s.prefix, s.message, s.holed = s.prefix[:0], s.message[:0], false
}
