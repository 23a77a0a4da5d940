package podresources

import (
	"regexp"
	"strconv"
)

// None is the number of what a device ID does not tell.
const None = -1

// Device is what a device plugin's ID says of a device. The plugins of NVIDIA name GPUs and MIG instances by their UUIDs, Google's by the
// number of the device file.
type Device struct {
	// ID is the whole name.
	ID string
	// UUID is GPU-... or MIG-..., empty where the ID has none.
	UUID string
	// Parent is the UUID of the GPU that a MIG instance is of, where the ID tells.
	Parent string
	// Minor is the number of the GPU's device file, /dev/nvidia0, or None.
	Minor int
	// GPUInstance and ComputeInstance are the numbers of a MIG instance, or None.
	GPUInstance, ComputeInstance int
	// Replica is the number of the share of a device that several containers have; empty of a whole one.
	Replica string
}

const uuidPattern = `[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}`

var (
	// GPU-<uuid> and MIG-<uuid>, with ::N for a share, or -N as schedulers that share GPUs write it.
	byUUID = regexp.MustCompile(`^((?:GPU|MIG)-` + uuidPattern + `)(?:(?:::|-)([0-9]+))?$`)
	// MIG-GPU-<uuid>/<GPU instance>/<compute instance>, as drivers before 470 named them.
	byParent = regexp.MustCompile(`^MIG-(GPU-` + uuidPattern + `)/([0-9]{1,4})/([0-9]{1,4})(?:::([0-9]+))?$`)
	// nvidia0, nvidia0/gi3, nvidia0/vgpu2 and nvidia0/gi3/vgpu2, as Google's device plugin names them.
	byMinor = regexp.MustCompile(`^nvidia([0-9]{1,4})(?:/gi([0-9]{1,4}))?(?:/vgpu([0-9]+))?$`)
)

// ParseDevice reads a device ID. It returns false for what is no GPU's.
func ParseDevice(id string) (Device, bool) {
	d := Device{ID: id, Minor: None, GPUInstance: None, ComputeInstance: None}
	if m := byUUID.FindStringSubmatch(id); m != nil {
		d.UUID, d.Replica = m[1], m[2]
		return d, true
	}
	if m := byParent.FindStringSubmatch(id); m != nil {
		d.Parent, d.GPUInstance, d.ComputeInstance, d.Replica = m[1], number(m[2]), number(m[3]), m[4]
		return d, true
	}
	if m := byMinor.FindStringSubmatch(id); m != nil {
		d.Minor, d.GPUInstance, d.Replica = number(m[1]), number(m[2]), m[3]
		return d, true
	}
	return d, false
}

// number reads up to four digits; None if there are none.
func number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		return None
	}
	return n
}
