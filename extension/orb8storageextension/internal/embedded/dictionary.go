package embedded

import (
	"slices"
	"strings"
	"unsafe"

	"github.com/orb8/orb8/internal/flow"
)

const (
	identityBytes = uint64(unsafe.Sizeof(flow.Identity{}))
	stringBytes   = uint64(unsafe.Sizeof(""))
)

// words are what the rows of a chunk refer to by index.
type words struct {
	strings    []string
	identities []flow.Identity
}

// dictionary gives strings and identities their index. Each chunk has its own, so that it can be evicted without
// counting references.
type dictionary struct {
	words
	stringIndex   map[string]uint32
	identityIndex map[flow.Identity]uint32
	// last are the identities of the two that were asked for last: those of a record's ends are mostly those of the one before.
	last [2]uint32
	// bytes is the memory of the words. The two indexes, which live only while the chunk is written, are not counted.
	bytes uint64
}

func newDictionary() dictionary {
	return dictionary{stringIndex: map[string]uint32{}, identityIndex: map[flow.Identity]uint32{}}
}

// seal drops what only the writer needs.
func (d *dictionary) seal() {
	d.stringIndex, d.identityIndex = nil, nil
	d.strings, d.identities = slices.Clone(d.strings), slices.Clone(d.identities)
}

// No interface has a slash in its name: the kernel does not allow it.
const interfaceSeparator = "/"

func joinInterfaces(names []string) string { return strings.Join(names, interfaceSeparator) }

func splitInterfaces(joined string) []string {
	if joined == "" {
		return nil
	}
	return strings.Split(joined, interfaceSeparator)
}

func (d *dictionary) stringID(s string) uint32 {
	id, known := d.stringIndex[s]
	if !known {
		// The clone keeps a short string from holding on to the message that it was cut from.
		s = strings.Clone(s)
		id = uint32(len(d.strings))
		d.strings = append(d.strings, s)
		d.stringIndex[s] = id
		d.bytes += stringBytes + uint64(len(s))
	}
	return id
}

func (d *dictionary) identityID(identity flow.Identity) uint32 {
	for _, id := range d.last {
		if int(id) < len(d.identities) && d.identities[id] == identity {
			return id
		}
	}
	id := d.indexedID(identity)
	d.last[0], d.last[1] = id, d.last[0]
	return id
}

func (d *dictionary) indexedID(identity flow.Identity) uint32 {
	id, known := d.identityIndex[identity]
	if !known {
		for _, s := range []*string{
			&identity.Cgroup, &identity.ContainerID, &identity.Runtime, &identity.PodUID, &identity.QOSClass, &identity.Pod,
			&identity.Namespace, &identity.Container, &identity.Unit, &identity.Process, &identity.Workload, &identity.WorkloadKind,
			&identity.Service, &identity.KubernetesNode, &identity.Labels,
		} {
			// Identities that differ only in process share their other strings.
			*s = d.strings[d.stringID(*s)]
		}
		id = uint32(len(d.identities))
		d.identities = append(d.identities, identity)
		d.identityIndex[identity] = id
		d.bytes += identityBytes
	}
	return id
}
