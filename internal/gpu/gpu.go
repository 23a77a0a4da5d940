// Package gpu is the model of what GPUs do: samples of metrics, and their form as OpenTelemetry metrics.
package gpu

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/orb8/orb8/internal/flow"
)

// Device is a GPU or a MIG instance.
type Device struct {
	// ID is its UUID, which no other device of any node has.
	ID string
	// Parent is the UUID of the GPU that a MIG instance is of; empty of a GPU.
	Parent string
	// Index is that of the GPU on its node, also of its MIG instances.
	Index uint32
	Model string
	// PCIAddress is domain:bus:device.function.
	PCIAddress string
	// MIGProfile is 1g.10gb, say; empty of a GPU.
	MIGProfile string
}

// Series is what samples that follow each other have in common. It can be compared.
type Series struct {
	Node string
	// Device has no ID where it is not known on which device a container did it, as of CUDA calls.
	Device Device
	// Identity is of the container that it was measured for; empty where the metric is the whole device's.
	Identity flow.Identity
	// Metric and Unit (UCUM) are those of the OpenTelemetry metric.
	Metric, Unit string
	// Attributes are the metric's further ones, as FormatAttributes writes them.
	Attributes string
	// Counter tells that values only grow, until they begin at zero again. Else they are levels.
	Counter bool
}

// Sample is what was measured at one instant.
type Sample struct {
	Series
	Time time.Time
	// Start is when a counter began at zero. It is the zero time where that is not known, as of counters that a driver keeps: such
	// a one begins anew where its value is less than the one before.
	Start time.Time
	// Value is in Unit.
	Value float64
}

// Own tells whether the series is of the device as a whole.
func (s *Series) Own() bool { return s.Identity == flow.Identity{} }

// escaper keeps what separates attributes out of them.
var escaper = strings.NewReplacer(`\`, `\\`, `,`, `\,`, `=`, `\=`)

// FormatAttributes writes attributes in one way: as "k=v,k=v" in the order of their keys, with a backslash before each comma, equals
// sign and backslash of a key or value.
func FormatAttributes(attributes map[string]string) string {
	var b strings.Builder
	for _, key := range slices.Sorted(maps.Keys(attributes)) {
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(escaper.Replace(key))
		b.WriteByte('=')
		b.WriteString(escaper.Replace(attributes[key]))
	}
	return b.String()
}

// ParseAttributes reads what FormatAttributes wrote; nil when there are none.
func ParseAttributes(s string) (map[string]string, error) {
	if s == "" {
		return nil, nil
	}
	attributes := map[string]string{}
	for more := true; more; {
		var key, value string
		var isKey bool
		if key, s, isKey = cut(s, '='); !isKey {
			return nil, fmt.Errorf("attribute %q has no value", key)
		}
		value, s, more = cut(s, ',')
		attributes[key] = value
	}
	return attributes, nil
}

// cut is strings.Cut at the first separator that has no backslash before it; it takes the backslashes away.
func cut(s string, separator byte) (before, after string, found bool) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == separator:
			return b.String(), s[i+1:], true
		case s[i] == '\\' && i+1 < len(s):
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String(), "", false
}
