// Package nvml reads what NVIDIA GPUs do from NVML, the management library that comes with the driver. The library is looked for and
// loaded at run time, and let go again.
package nvml

import (
	"errors"
	"time"
)

// ErrAbsent says that this host, or this build, has no NVML that works: no library, no driver, no cgo.
var ErrAbsent = errors.New("NVML is not there")

// errLost is the error of calls after which NVML must be opened anew.
var errLost = errors.New("the driver is gone")

// Value is of a metric, named as facts of GPUs are everywhere in orb8: hw.power. Ratios are from 0 to 1, the rest is in the metric's unit.
type Value struct {
	Metric string
	// Part is the value of the metric's own attribute, such as the task of hw.gpu.utilization.
	Part  string
	Value float64
}

// Device is a GPU or a MIG instance, and what it does.
type Device struct {
	// UUID is GPU-... or MIG-...; Parent is the UUID of the GPU that a MIG instance is of.
	UUID, Parent string
	// Index is of the GPU, also of its instances.
	Index int
	Model string
	// PCI is domain:bus:device.function.
	PCI string
	// Profile of a MIG instance: 1g.10gb.
	Profile string
	// GPUInstance and ComputeInstance are the ids of a MIG instance; none of a GPU.
	GPUInstance, ComputeInstance uint32
	Values                       []Value
	Processes                    []Process
	// Rows are the remapped rows of its memory, where it tells.
	Rows *Rows
	// Lost tells that the driver no longer reaches it: only what identifies it is known, from before.
	Lost bool

	wrapping []wrapping
}

// None is the id of a GPU or compute instance where there is none.
const None = 0xFFFFFFFF

// Rows of device memory for which spare ones stand in.
type Rows struct {
	Corrected, Uncorrected int
	Pending, Failed        bool
}

// Process uses a device.
type Process struct {
	// PID is in the host's namespace.
	PID uint32
	// Memory in bytes; 0 where the driver does not tell.
	Memory uint64
	// Utilization is by engine (sm, mem, enc, dec), 0 to 1, since the last snapshot. Nil where the device does not tell.
	Utilization map[string]float64
}

// EventType is what happened to a device.
type EventType int

// Types of events.
const (
	// XID is an error that the driver reports; its number is the event's Code.
	XID EventType = iota
	// DoubleBitECC is an error of memory that could not be corrected.
	DoubleBitECC
)

// Event is what a GPU reported by itself.
type Event struct {
	Type EventType
	Time time.Time
	// UUID is of the GPU, or of the MIG instance where that is known.
	UUID string
	PCI  string
	// Code is NVIDIA's number of an XID error.
	Code uint64
	// GPUInstance and ComputeInstance are None where the error is not of a MIG instance.
	GPUInstance, ComputeInstance uint32
}

// Snapshot is what was seen at once.
type Snapshot struct {
	Devices []Device
	// Driver is its version.
	Driver string
}

// Hold says when the library stays open between snapshots.
type Hold int

// While NVML is open, the driver cannot be unloaded, nor a GPU be taken from it. While a process uses one, neither can be.
const (
	HoldBusy Hold = iota
	HoldAlways
	HoldNever
)

// driver is NVML, opened.
type driver interface {
	// snapshot reads all devices. held tells that the driver stays open until the next one: what needs two samples is then to be
	// had. Devices that cannot be read are an error beside those that can.
	snapshot(now time.Time, since time.Duration, held bool) (*Snapshot, error)
	// wait returns an event, or nil when there was none in time. Its error ends the waiting.
	wait(timeout time.Duration) (*Event, error)
	close() error
}
