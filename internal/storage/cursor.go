package storage

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"sort"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/syscalls"
)

// ErrCursor is in the error of a query whose After is no Next of an answer to a query of its kind.
var ErrCursor = errors.New("not where a page ended")

const cursorVersion = 1

// FlowKey returns what orders the rows of a FlowResult: in the order of their bytes. It is made of what is in a row alone, so that
// the order is the same wherever and whenever it is stored.
func FlowKey(r *flow.Record) []byte {
	var k key
	k.descending(uint64(r.End.UnixNano())^1<<63, uint64(r.Start.UnixNano())^1<<63)
	k.text(r.Node)
	k.endpoint(&r.Source)
	k.endpoint(&r.Destination)
	k = append(k, byte(r.Direction), byte(r.Transport), r.ICMPType, r.ICMPCode)
	k.identity(&r.Local().Identity)
	k.ascending(uint64(r.ClientISN)<<32|uint64(r.ServerISN), r.Bytes, r.Packets)
	return k
}

// LookupKey is FlowKey of a LookupResult.
func LookupKey(l *flow.Lookup) []byte {
	var k key
	k.descending(uint64(l.Time.UnixNano()) ^ 1<<63)
	k.text(l.Node)
	k.endpoint(&l.Client)
	k.endpoint(&l.Server)
	for _, s := range []string{l.Name, l.Type, l.RCode, l.Interface} {
		k.text(s)
	}
	k = append(k, byte(l.Direction), byte(l.Transport))
	k.identity(&l.Local().Identity)
	k.ascending(uint64(l.Latency), l.Queries)
	return k
}

// SyscallKey is FlowKey of a SyscallResult.
func SyscallKey(s *Syscall) []byte {
	var k key
	k.descending(s.Calls)
	k.text(s.Node)
	k.identity(&s.Identity)
	k.text(s.Call.Name())
	k = append(k, byte(s.Call.ABI))
	return k
}

// AnomalyKey is FlowKey of an AnomalyResult.
func AnomalyKey(n *syscalls.Anomaly) []byte {
	var k key
	k.descending(uint64(n.Time.UnixNano()) ^ 1<<63)
	k.text(n.Node)
	k.identity(&n.Identity)
	k.text(n.Rule)
	k = append(k, byte(n.Severity), byte(n.Call.ABI))
	k.ascending(uint64(n.Call.Number), n.Calls, math.Float64bits(n.Rate))
	k.text(n.Message)
	return k
}

type key []byte

func (k *key) ascending(numbers ...uint64) {
	for _, n := range numbers {
		*k = binary.BigEndian.AppendUint64(*k, n)
	}
}

func (k *key) descending(numbers ...uint64) {
	for _, n := range numbers {
		*k = binary.BigEndian.AppendUint64(*k, ^n)
	}
}

// text ends with what no name has, so that a name comes before those that begin with it.
func (k *key) text(s string) { *k = append(append(*k, s...), 0) }

func (k *key) endpoint(e *flow.Endpoint) {
	addr := e.Addr.Addr().As16()
	*k = binary.BigEndian.AppendUint16(append(*k, addr[:]...), e.Addr.Port())
}

func (k *key) identity(i *flow.Identity) {
	for _, s := range []string{i.Namespace, i.Pod, i.Container, i.Cgroup} {
		k.text(s)
	}
	k.ascending(i.CgroupID, uint64(i.PID))
	for _, s := range []string{i.ContainerID, i.Unit, i.Process} {
		k.text(s)
	}
}

// Page returns which of n rows, in the order of their keys, follow what after tells, at most limit unless that is 0, and what to
// go on from where there are more.
func Page(signal Signal, n int, keyOf func(int) []byte, after string, limit int) (from, to int, next string, err error) {
	var last []byte
	var same uint64
	if after != "" {
		if last, same, err = parseCursor(signal, after); err != nil {
			return 0, 0, "", err
		}
		from = sort.Search(n, func(i int) bool { return bytes.Compare(keyOf(i), last) >= 0 })
		// What was stored twice has two rows that are the same.
		for skip := same; skip > 0 && from < n && bytes.Equal(keyOf(from), last); skip-- {
			from++
		}
	}
	if to = n; limit <= 0 || n-from <= limit {
		return from, to, "", nil
	}
	to = from + limit
	end := keyOf(to - 1)
	count := uint64(1)
	for i := to - 2; i >= from && bytes.Equal(keyOf(i), end); i-- {
		count++
	}
	if count == uint64(limit) && bytes.Equal(end, last) {
		count += same
	}
	return from, to, cursor(signal, end, count), nil
}

// cursor says that a page ended with so many rows of a key.
func cursor(signal Signal, key []byte, same uint64) string {
	text := binary.AppendUvarint([]byte{cursorVersion, byte(signal)}, same)
	return base64.RawURLEncoding.EncodeToString(append(text, key...))
}

func parseCursor(signal Signal, text string) (key []byte, same uint64, err error) {
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(raw) < 3 {
		return nil, 0, fmt.Errorf("%q: %w", text, ErrCursor)
	}
	if raw[0] != cursorVersion {
		return nil, 0, fmt.Errorf("%q is of version %d, and this orb8 knows %d: %w", text, raw[0], cursorVersion, ErrCursor)
	}
	if Signal(raw[1]) != signal {
		return nil, 0, fmt.Errorf("%q is of another kind of query: %w", text, ErrCursor)
	}
	same, width := binary.Uvarint(raw[2:])
	if width <= 0 {
		return nil, 0, fmt.Errorf("%q: %w", text, ErrCursor)
	}
	return raw[2+width:], same, nil
}
