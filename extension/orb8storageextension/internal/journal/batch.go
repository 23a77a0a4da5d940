package journal

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/gpu"
	"github.com/orb8/orb8/internal/syscalls"
)

// Kind is what a record of the journal holds.
type Kind uint8

// Their numbers are in files: they never change.
const (
	Flows Kind = iota + 1
	Lookups
	Counts
	Anomalies
	NetworkStatus
	SyscallStatus
	GPU
	GPUStatus
)

// version is that of the encoding. Version 1 has no labels.
const version = 2

// Batch is one write to the store. Of the slices and statuses, the one of its kind is set.
type Batch struct {
	Kind Kind
	// ID is the same for every batch that holds the same records, whoever sends it and how often.
	ID ID
	// Arrived is when it came.
	Arrived       time.Time
	Flows         []flow.Record
	Lookups       []flow.Lookup
	Counts        []syscalls.Counts
	Anomalies     []syscalls.Anomaly
	GPU           []gpu.Sample
	NetworkStatus flow.NetworkStatus
	SyscallStatus syscalls.Status
	GPUStatus     gpu.Status
}

// Identify gives the batch its ID; that of a status, which may come twice without harm, is zero.
func (b *Batch) Identify() {
	switch b.Kind {
	case Flows:
		b.ID = flowsID(b.Flows)
	case Lookups:
		b.ID = lookupsID(b.Lookups)
	case Counts:
		b.ID = countsID(b.Counts)
	case Anomalies:
		b.ID = anomaliesID(b.Anomalies)
	case GPU:
		b.ID = gpuID(b.GPU)
	}
}

// Encode appends the batch to buf.
func (b *Batch) Encode(buf []byte) ([]byte, error) {
	c := newWriter(append(buf, version, byte(b.Kind)))
	err := b.code(c)
	return c.buf, err
}

// Decode is the inverse of Encode.
func Decode(record []byte) (*Batch, error) {
	if len(record) < 2 {
		return nil, errShort
	}
	if record[0] > version {
		return nil, fmt.Errorf("it has version %d and this orb8 knows %d: use the orb8 that wrote it, or a later one", record[0], version)
	}
	c := newReader(record[2:])
	c.unlabelled = record[0] < 2
	b := &Batch{Kind: Kind(record[1])}
	if err := b.code(c); err != nil {
		return nil, err
	}
	return b, c.err
}

func (b *Batch) code(c *codec) error {
	number(c, &b.ID[0])
	number(c, &b.ID[1])
	c.instant(&b.Arrived)
	switch b.Kind {
	case Flows:
		list(c, &b.Flows, c.flow)
	case Lookups:
		list(c, &b.Lookups, c.lookup)
	case Counts:
		list(c, &b.Counts, c.counts)
	case Anomalies:
		list(c, &b.Anomalies, c.anomaly)
	case GPU:
		list(c, &b.GPU, c.sample)
	case NetworkStatus:
		return c.document(&b.NetworkStatus)
	case SyscallStatus:
		return c.document(&b.SyscallStatus)
	case GPUStatus:
		return c.document(&b.GPUStatus)
	default:
		return fmt.Errorf("it is of kind %d, which this orb8 does not know: use the orb8 that wrote it, or a later one", b.Kind)
	}
	return nil
}

// document is for what is rare: one a node and interval.
func (c *codec) document(v any) error {
	if c.reading {
		return json.Unmarshal(c.buf, v)
	}
	text, err := json.Marshal(v)
	c.buf = append(c.buf, text...)
	return err
}
