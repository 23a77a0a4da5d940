package embedded

import (
	"math"
	"time"
	"unsafe"

	"github.com/orb8/orb8/internal/flow"
)

// health is flow.TCPHealth in half its size. It stands in a column of its own, because most transports have none.
// Durations are in microseconds, which is what the kernel measures in; 71 minutes and 4 billion segments an interval
// are the most that it can tell.
type health struct {
	// isns are the initial sequence numbers, the client's in the upper half. 0 is none: that a connection has this very pair
	// happens once in 2^64.
	isns                     uint64
	srtt, minRTT, handshake  uint32
	retransmits, zeroWindows uint32
}

const healthBytes = uint64(unsafe.Sizeof(health{}))

func compact(h *flow.TCPHealth) health {
	c := health{
		srtt:        micros(h.SRTT),
		minRTT:      micros(h.MinRTT),
		handshake:   micros(h.Handshake),
		retransmits: uint32(min(h.Retransmits, math.MaxUint32)),
		zeroWindows: uint32(min(h.ZeroWindows, math.MaxUint32)),
	}
	if h.HasISNs {
		c.isns = uint64(h.ClientISN)<<32 | uint64(h.ServerISN)
	}
	return c
}

func micros(d time.Duration) uint32 {
	return uint32(min(max(d.Microseconds(), 0), math.MaxUint32))
}

func duration(micros uint32) time.Duration {
	return time.Duration(micros) * time.Microsecond
}

func (h *health) expand() flow.TCPHealth {
	return flow.TCPHealth{
		ClientISN:   uint32(h.isns >> 32),
		ServerISN:   uint32(h.isns),
		HasISNs:     h.isns != 0,
		SRTT:        duration(h.srtt),
		MinRTT:      duration(h.minRTT),
		Handshake:   duration(h.handshake),
		Retransmits: uint64(h.retransmits),
		ZeroWindows: uint64(h.zeroWindows),
	}
}

// healthSum is the health of the records of one flow.
type healthSum struct {
	isns                     uint64
	srtt, minRTT, handshake  uint32
	retransmits, zeroWindows uint64
}

// add takes a record's health; newest tells whether no record before was newer.
func (s *healthSum) add(h *health, newest bool) {
	if h.isns != 0 {
		s.isns = h.isns
	}
	if h.srtt != 0 && (newest || s.srtt == 0) {
		s.srtt = h.srtt
	}
	if h.handshake != 0 && (newest || s.handshake == 0) {
		s.handshake = h.handshake
	}
	if h.minRTT != 0 && (h.minRTT < s.minRTT || s.minRTT == 0) {
		s.minRTT = h.minRTT
	}
	s.retransmits += uint64(h.retransmits)
	s.zeroWindows += uint64(h.zeroWindows)
}

func (s *healthSum) expand() flow.TCPHealth {
	h := health{isns: s.isns, srtt: s.srtt, minRTT: s.minRTT, handshake: s.handshake}
	sum := h.expand()
	sum.Retransmits, sum.ZeroWindows = s.retransmits, s.zeroWindows
	return sum
}
