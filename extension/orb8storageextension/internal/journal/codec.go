package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"time"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/gpu"
	"github.com/orb8/orb8/internal/syscalls"
)

// errShort is what is wrong with a record that ends too early.
var errShort = errors.New("it ends too early")

// codec writes values to a record, or reads them from one. What is written is said once for both: a field that only one of them
// knew would shift all that follow.
type codec struct {
	reading bool
	// unlabelled records are of version 1.
	unlabelled bool
	buf        []byte
	err        error

	// Strings and identities are written once a record; after that, their number is.
	strings       []string
	stringIndex   map[string]uint64
	identities    []flow.Identity
	identityIndex map[flow.Identity]uint64
	// last are the two identities that were written last, as those of one record are mostly those of the one before, and lastAt
	// their numbers.
	last   [2]flow.Identity
	lastAt [2]uint64
}

func newWriter(buf []byte) *codec {
	return &codec{buf: buf, stringIndex: map[string]uint64{}, identityIndex: map[flow.Identity]uint64{}}
}

func newReader(record []byte) *codec {
	return &codec{reading: true, buf: record}
}

// fail makes all further reads return zero values.
func (c *codec) fail(err error) {
	if c.err == nil {
		c.err = err
	}
	c.buf = nil
}

type unsigned interface {
	~uint8 | ~uint16 | ~uint32 | ~uint64
}

func number[T unsigned](c *codec, v *T) {
	if !c.reading {
		c.buf = binary.AppendUvarint(c.buf, uint64(*v))
		return
	}
	n, width := binary.Uvarint(c.buf)
	if width <= 0 {
		c.fail(errShort)
		return
	}
	*v, c.buf = T(n), c.buf[width:]
}

func signed[T ~int32 | ~int64](c *codec, v *T) {
	n := uint64(*v)<<1 ^ uint64(int64(*v)>>63)
	number(c, &n)
	*v = T(int64(n>>1) ^ -int64(n&1))
}

func (c *codec) float(v *float64) {
	bits := math.Float64bits(*v)
	number(c, &bits)
	*v = math.Float64frombits(bits)
}

func (c *codec) flag(v *bool) {
	var n uint8
	if *v {
		n = 1
	}
	number(c, &n)
	*v = n != 0
}

// instant is in nanoseconds since the epoch, which is all that the store keeps of it.
func (c *codec) instant(v *time.Time) {
	n := v.UnixNano()
	signed(c, &n)
	if c.reading {
		*v = time.Unix(0, n).UTC()
	}
}

func (c *codec) duration(v *time.Duration) { signed(c, v) }

// length is that of a list. Each element takes a byte at least: a longer list than that is none.
func (c *codec) length(n int) int {
	v := uint64(n)
	number(c, &v)
	if c.reading && v > uint64(len(c.buf)) {
		c.fail(errShort)
		return 0
	}
	return int(v)
}

func (c *codec) bytes(n int) []byte {
	if n > len(c.buf) {
		c.fail(errShort)
		return nil
	}
	b := c.buf[:n]
	c.buf = c.buf[n:]
	return b
}

// text writes 0 and the string where it is new, else its number counted from 1.
func (c *codec) text(v *string) {
	if !c.reading {
		if at, known := c.stringIndex[*v]; known {
			number(c, &at)
			return
		}
		c.stringIndex[*v] = uint64(len(c.stringIndex)) + 1
		c.buf = append(c.buf, 0)
		c.buf = binary.AppendUvarint(c.buf, uint64(len(*v)))
		c.buf = append(c.buf, *v...)
		return
	}
	var at uint64
	number(c, &at)
	switch {
	case at == 0:
		*v = string(c.bytes(c.length(0)))
		c.strings = append(c.strings, *v)
	case at <= uint64(len(c.strings)):
		*v = c.strings[at-1]
	default:
		c.fail(fmt.Errorf("string %d of %d", at, len(c.strings)))
	}
}

// identity is as text.
func (c *codec) identity(v *flow.Identity) {
	var at uint64
	if !c.reading {
		at = c.identityNumber(v)
	}
	number(c, &at)
	switch {
	case at == 0:
		number(c, &v.CgroupID)
		for _, s := range []*string{
			&v.Cgroup, &v.ContainerID, &v.Runtime, &v.PodUID, &v.QOSClass, &v.Pod, &v.Namespace, &v.Container, &v.Unit, &v.Process,
			&v.Workload, &v.WorkloadKind, &v.Service, &v.KubernetesNode,
		} {
			c.text(s)
		}
		number(c, &v.PID)
		if !c.unlabelled {
			c.text(&v.Labels)
		}
		if c.reading {
			c.identities = append(c.identities, *v)
		}
	case !c.reading:
	case at <= uint64(len(c.identities)):
		*v = c.identities[at-1]
	default:
		c.fail(fmt.Errorf("identity %d of %d", at, len(c.identities)))
	}
}

// identityNumber returns 0 for an identity that is new.
func (c *codec) identityNumber(v *flow.Identity) uint64 {
	for i, at := range c.lastAt {
		if at != 0 && c.last[i] == *v {
			return at
		}
	}
	at, known := c.identityIndex[*v]
	if !known {
		at = uint64(len(c.identityIndex)) + 1
		c.identityIndex[*v] = at
	}
	c.last[1], c.lastAt[1] = c.last[0], c.lastAt[0]
	c.last[0], c.lastAt[0] = *v, at
	if !known {
		return 0
	}
	return at
}

func (c *codec) address(v *netip.AddrPort) {
	addr, port := v.Addr(), v.Port()
	if !c.reading {
		raw := addr.AsSlice()
		c.buf = append(append(c.buf, byte(len(raw))), raw...)
		number(c, &port)
		return
	}
	if width := c.bytes(1); width != nil {
		addr, _ = netip.AddrFromSlice(c.bytes(int(width[0])))
	}
	number(c, &port)
	*v = netip.AddrPortFrom(addr, port)
}

func (c *codec) flow(r *flow.Record) {
	c.instant(&r.Start)
	c.instant(&r.End)
	c.text(&r.Node)
	number(c, &r.Direction)
	number(c, &r.Transport)
	for _, e := range []*flow.Endpoint{&r.Source, &r.Destination} {
		c.address(&e.Addr)
		c.identity(&e.Identity)
		c.text(&e.Name)
	}
	list(c, &r.Interfaces, c.text)
	number(c, &r.ICMPType)
	number(c, &r.ICMPCode)
	number(c, &r.TCPFlags)
	for _, n := range []*uint64{&r.Bytes, &r.Packets, &r.Connections, &r.LostPackets, &r.Retransmits, &r.ZeroWindows} {
		number(c, n)
	}
	c.flag(&r.HasISNs)
	number(c, &r.ClientISN)
	number(c, &r.ServerISN)
	c.duration(&r.SRTT)
	c.duration(&r.MinRTT)
	c.duration(&r.Handshake)
	number(c, &r.Initiator)
	c.flag(&r.Ended)
	number(c, &r.Outcome)
}

func (c *codec) lookup(l *flow.Lookup) {
	c.instant(&l.Time)
	c.text(&l.Node)
	number(c, &l.Direction)
	number(c, &l.Transport)
	for _, e := range []*flow.Endpoint{&l.Client, &l.Server} {
		c.address(&e.Addr)
		c.identity(&e.Identity)
	}
	for _, s := range []*string{&l.Interface, &l.Name, &l.Type, &l.RCode} {
		c.text(s)
	}
	c.duration(&l.Latency)
	number(c, &l.Queries)
	list(c, &l.Answers, func(a *flow.Answer) {
		c.text(&a.Name)
		c.text(&a.Type)
		c.duration(&a.TTL)
		c.text(&a.Data)
	})
	c.flag(&l.Truncated)
	c.flag(&l.Incomplete)
}

func (c *codec) counts(n *syscalls.Counts) {
	c.instant(&n.Start)
	c.instant(&n.End)
	c.text(&n.Node)
	c.identity(&n.Identity)
	number(c, &n.LostCalls)
	list(c, &n.Calls, func(v *syscalls.Count) {
		c.call(&v.Call)
		number(c, &v.Calls)
		c.errors(&v.Errors)
		measured := v.Latency != nil
		if c.flag(&measured); !measured {
			return
		}
		if c.reading {
			v.Latency = &syscalls.Latency{}
		}
		c.duration(&v.Latency.Sum)
		for i := range v.Latency.Buckets {
			number(c, &v.Latency.Buckets[i])
		}
	})
}

func (c *codec) call(v *syscalls.Call) {
	number(c, &v.ABI)
	signed(c, &v.Number)
}

func (c *codec) errors(v *map[string]uint64) {
	n := c.length(len(*v))
	if !c.reading {
		for name, calls := range *v {
			c.text(&name)
			number(c, &calls)
		}
		return
	}
	if n == 0 {
		return
	}
	*v = map[string]uint64{}
	for range n {
		var name string
		var calls uint64
		c.text(&name)
		number(c, &calls)
		(*v)[name] = calls
	}
}

func (c *codec) anomaly(n *syscalls.Anomaly) {
	c.instant(&n.Time)
	for _, s := range []*string{&n.Node, &n.Workload, &n.Rule, &n.Message} {
		c.text(s)
	}
	c.identity(&n.Identity)
	number(c, &n.Severity)
	c.call(&n.Call)
	number(c, &n.Calls)
	c.float(&n.Rate)
	c.float(&n.Baseline)
	evidence := n.Evidence != nil
	if c.flag(&evidence); !evidence {
		return
	}
	if c.reading {
		n.Evidence = &syscalls.Event{Node: n.Node, Call: n.Call}
	}
	c.instant(&n.Evidence.Time)
	c.text(&n.Evidence.Identity.Process)
	number(c, &n.Evidence.Identity.PID)
	number(c, &n.Evidence.TID)
	number(c, &n.Evidence.Sampling)
	list(c, &n.Evidence.Arguments, func(a *syscalls.Argument) {
		c.text(&a.Name)
		c.text(&a.Value)
	})
}

func (c *codec) sample(s *gpu.Sample) {
	c.instant(&s.Time)
	c.text(&s.Node)
	c.identity(&s.Identity)
	d := &s.Device
	for _, text := range []*string{&d.ID, &d.Parent, &d.Model, &d.PCIAddress, &d.MIGProfile, &s.Metric, &s.Unit, &s.Attributes} {
		c.text(text)
	}
	number(c, &d.Index)
	c.float(&s.Value)
	c.flag(&s.Counter)
	started := !s.Start.IsZero()
	if c.flag(&started); started {
		c.instant(&s.Start)
	}
}

// list leaves an empty list nil. It grows as it is read: what a damaged record claims to hold takes no memory.
func list[T any](c *codec, v *[]T, element func(*T)) {
	n := c.length(len(*v))
	for i := 0; i < n && c.err == nil; i++ {
		if c.reading {
			var zero T
			*v = append(*v, zero)
		}
		element(&(*v)[i])
	}
}
