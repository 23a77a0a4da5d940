package dns

import (
	"bytes"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// got is what a stream has yielded.
type got struct {
	messages []string
	cut      []string
}

func (g *got) yield(message []byte, whole bool) {
	if whole {
		g.messages = append(g.messages, string(message))
	} else {
		g.cut = append(g.cut, string(message))
	}
}

// piece is bytes from and up to an offset of the stream, all of them captured.
func piece(stream []byte, from, to int) segment {
	return segment{seq: uint32(from), length: to - from, payload: stream[from:to]}
}

// captured is a piece of which only the first n bytes are there.
func captured(s segment, n int) segment {
	s.payload = s.payload[:n]
	return s
}

func TestStream(t *testing.T) {
	whole := prefixed([]byte("first"), []byte("second!"), []byte("third")) // ends at 7, 16 and 23
	tests := map[string]struct {
		segments []segment
		want     got
		lost     bool
	}{
		"one segment": {[]segment{piece(whole, 0, 23)}, got{messages: []string{"first", "second!", "third"}}, false},
		"a message a segment": {
			[]segment{piece(whole, 0, 7), piece(whole, 7, 16), piece(whole, 16, 23)},
			got{messages: []string{"first", "second!", "third"}}, false,
		},
		"cut within messages and lengths": {
			[]segment{piece(whole, 0, 1), piece(whole, 1, 5), piece(whole, 5, 8), piece(whole, 8, 23)},
			got{messages: []string{"first", "second!", "third"}}, false,
		},
		"out of order": {
			[]segment{piece(whole, 0, 3), piece(whole, 16, 23), piece(whole, 9, 16), piece(whole, 3, 9)},
			got{messages: []string{"first", "second!", "third"}}, false,
		},
		"sent again": {
			[]segment{piece(whole, 0, 9), piece(whole, 0, 9), piece(whole, 9, 20), piece(whole, 9, 20), piece(whole, 20, 23)},
			got{messages: []string{"first", "second!", "third"}}, false,
		},
		"sent again in other pieces": {
			[]segment{piece(whole, 0, 9), piece(whole, 5, 20), piece(whole, 0, 23)},
			got{messages: []string{"first", "second!", "third"}}, false,
		},
		"the end of a message is not captured": {
			[]segment{captured(piece(whole, 0, 7), 4), piece(whole, 7, 23)},
			got{messages: []string{"second!", "third"}, cut: []string{"fi"}}, false,
		},
		"a message's middle is not captured": {
			[]segment{captured(piece(whole, 0, 5), 4), piece(whole, 5, 23)},
			got{messages: []string{"second!", "third"}, cut: []string{"fi"}}, false,
		},
		"a length is not captured": {
			[]segment{captured(piece(whole, 0, 23), 6)}, got{}, true,
		},
		"half of a length is not captured": {
			[]segment{captured(piece(whole, 0, 9), 8)}, got{messages: []string{"first"}}, true,
		},
		"what was not captured is sent again": {
			[]segment{captured(piece(whole, 0, 7), 4), piece(whole, 0, 10), piece(whole, 10, 23)},
			got{messages: []string{"second!", "third"}, cut: []string{"fi"}}, false,
		},
		"another connection of the same ports": {
			[]segment{piece(whole, 0, 9), {seq: 1 << 30, length: 7, payload: whole[:7]}},
			got{messages: []string{"first", "first"}}, false,
		},
		"no message": {[]segment{{seq: 5, length: 4, payload: []byte{0, 0, 0, 0}}}, got{}, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var s stream
			var g got
			intact := true
			for _, seg := range tt.segments {
				intact = s.add(seg, g.yield)
			}
			assert.Equal(t, !tt.lost, intact)
			assert.Equal(t, tt.want, g)
		})
	}
}

func TestSequenceNumbersWrap(t *testing.T) {
	whole := prefixed([]byte("first"), []byte("second!"))
	var s stream
	var g got
	for _, from := range []int{0, 8, 4, 12} {
		to := min(from+4, len(whole))
		require.True(t, s.add(segment{seq: math.MaxUint32 - 5 + uint32(from), length: to - from, payload: whole[from:to]}, g.yield))
	}
	assert.Equal(t, []string{"first", "second!"}, g.messages)
}

func TestHeldSegmentsAreBoundedAndTheirOwn(t *testing.T) {
	long := []byte(strings.Repeat("x", 100))
	var s stream
	var g got
	require.True(t, s.add(piece(prefixed(long), 0, 2), g.yield))
	buf := []byte{'x'}
	for i := range maxHeld {
		require.True(t, s.add(segment{seq: uint32(10 + i), length: 1, payload: buf}, g.yield))
	}
	buf[0] = 'y' // the ring buffer's memory is used again
	for _, held := range s.held {
		assert.Equal(t, "x", string(held.payload))
	}
	assert.False(t, s.add(segment{seq: 99, length: 1, payload: buf}, g.yield))
}

func TestLongMessageIsCut(t *testing.T) {
	long := bytes.Repeat([]byte("x"), 3*maxMessage)
	var s stream
	var g got
	stream := prefixed(long, []byte("next"))
	for from := 0; from < len(stream); from += 1000 {
		require.True(t, s.add(piece(stream, from, min(from+1000, len(stream))), g.yield))
		require.LessOrEqual(t, len(s.message), maxMessage)
	}
	require.Len(t, g.cut, 1)
	assert.Len(t, g.cut[0], maxMessage)
	assert.Equal(t, []string{"next"}, g.messages)
}

// Whatever the pieces are and the order in which they come, the messages are the same, as long as none waits for too many.
func FuzzStream(f *testing.F) {
	f.Add([]byte{5, 7, 3}, []byte{4, 4, 4}, uint8(1))
	f.Add([]byte{1}, []byte{1}, uint8(0))
	f.Fuzz(func(t *testing.T, lengths, cuts []byte, swap uint8) {
		var want []string
		var messages [][]byte
		for i, n := range lengths[:min(len(lengths), 50)] {
			messages = append(messages, bytes.Repeat([]byte{byte('a' + i%26)}, int(n)))
			if n > 0 {
				want = append(want, string(messages[i]))
			}
		}
		whole := prefixed(messages...)
		var segments []segment
		for from, i := 0, 0; from < len(whole); i++ {
			n := 1000
			if i < len(cuts) {
				n = 1 + int(cuts[i])
			}
			to := min(from+n, len(whole))
			segments = append(segments, piece(whole, from, to))
			from = to
		}
		if i := int(swap); i > 0 && i+1 < len(segments) {
			segments[i], segments[i+1] = segments[i+1], segments[i]
		}
		var s stream
		var g got
		for i, seg := range segments {
			require.True(t, s.add(seg, g.yield), "segment %d", i)
		}
		require.Equal(t, fmt.Sprint(want), fmt.Sprint(g.messages))
	})
}
