package nvml

// wrapping is the value of a counter that begins again at zero when its bits are full.
type wrapping struct {
	metric, part string
	raw          uint64
	bits         int
}

// counter tells such counters apart.
type counter struct {
	metric, part, device string
}

type count struct {
	raw   uint64
	known bool
	total uint64
}

// counters make counters that only grow of those that wrap. They begin with what is read first.
type counters map[counter]*count

// unwrap turns what wraps in a snapshot into values.
func (c counters) unwrap(snapshot *Snapshot) {
	for i := range snapshot.Devices {
		d := &snapshot.Devices[i]
		for _, w := range d.wrapping {
			k := counter{w.metric, w.part, d.UUID}
			n := c[k]
			if n == nil {
				n = &count{total: w.raw, raw: w.raw, known: true}
				c[k] = n
			}
			n.next(w.raw, w.bits)
			d.Values = append(d.Values, Value{w.metric, w.part, float64(n.total)})
		}
		d.wrapping = nil
	}
}

// next adds what was counted since the last value.
func (n *count) next(raw uint64, bits int) {
	switch {
	case !n.known: // as of a driver that was away: what it counted meanwhile is not known
	case raw >= n.raw:
		n.total += raw - n.raw
	case bits == 32 || n.raw < 1<<32:
		// Drivers tell 64 bits and fill 32 of them.
		n.total += raw + 1<<32 - n.raw
	default:
		// No counter gets through 64 bits: it has begun again.
		n.total += raw
	}
	n.raw, n.known = raw, true
}

// forget says that counters may have begun again unseen.
func (c counters) forget() {
	for _, n := range c {
		n.known = false
	}
}
