// Package cgroup tells who a cgroup v2 id belongs to: it finds the hierarchy, keeps an index of its directories by
// inode number, and reads container, pod and systemd unit from their paths.
package cgroup

import "strings"

// Container runtimes as Parse names them.
const (
	Containerd = "containerd"
	CRIO       = "cri-o"
	Docker     = "docker"
	Podman     = "podman"
)

// Quality-of-service classes of pods as Parse names them.
const (
	Guaranteed = "guaranteed"
	Burstable  = "burstable"
	BestEffort = "besteffort"
)

// Identity is what the path of a cgroup says about the processes in it. What the path does not say is empty.
type Identity struct {
	// Path of the cgroup below the root of the hierarchy, with a leading slash as in /proc/PID/cgroup.
	Path string
	// ContainerID is the runtime's id: 64 lower-case hexadecimal digits.
	ContainerID string
	// Runtime is Containerd, CRIO, Docker or Podman. The cgroupfs driver writes no runtime into the path.
	Runtime string
	// PodUID is spelt as the Kubernetes API does: with dashes, or 32 hexadecimal digits for a static pod.
	PodUID string
	// QOSClass is set when PodUID is.
	QOSClass string
	// Unit is the innermost systemd service or scope of processes in no container.
	Unit string
}

// Parse reads an identity from the path of a cgroup below the root of the hierarchy. It knows the directories that
// the kubelet, containerd, CRI-O, Docker and Podman make with the systemd and with the cgroupfs driver, wherever in
// the hierarchy they are. A cgroup below a container's belongs to that container.
func Parse(path string) Identity {
	id := Identity{Path: path}
	var grandparent, parent, unit string
	for name := range strings.SplitSeq(path, "/") {
		if id.PodUID == "" {
			if uid, qos := podOf(grandparent, parent, name); uid != "" {
				// Whatever contains the pod, such as a container that plays a Kubernetes node, is not in it.
				id = Identity{Path: path, PodUID: uid, QOSClass: qos}
				unit = ""
			}
		}
		if id.ContainerID == "" {
			id.ContainerID, id.Runtime = containerOf(parent, name)
		}
		if strings.HasSuffix(name, ".service") || strings.HasSuffix(name, ".scope") {
			// systemd puts an underscore before a name that would look like a file of the kernel's.
			unit = strings.TrimPrefix(name, "_")
		}
		grandparent, parent = parent, name
	}
	if id.ContainerID == "" {
		id.Unit = unit
	}
	return id
}

// podOf returns the pod's UID and QoS class if name is a pod's directory: kubepods[-QOS]-podUID.slice with the
// systemd driver, kubepods[/QOS]/podUID with cgroupfs.
func podOf(grandparent, parent, name string) (uid, qos string) {
	if slice, rest, ok := strings.Cut(name, ".slice"); ok && (rest == "" || rest[0] == ':') {
		i := strings.LastIndex(slice, "-pod")
		if i < 0 {
			return "", ""
		}
		// A dash means "child of" in the name of a slice, so that those of the UID are written as underscores.
		uid, slice = strings.ReplaceAll(slice[i+len("-pod"):], "_", "-"), slice[:i]
		qos = Guaranteed
		for _, class := range []string{Burstable, BestEffort} {
			if s, ok := strings.CutSuffix(slice, "-"+class); ok {
				slice, qos = s, class
			}
		}
		// The kubelet's cgroup root comes first in the name: kubelet-kubepods-... in kind.
		if (slice == "kubepods" || strings.HasSuffix(slice, "-kubepods")) && isPodUID(uid) {
			return uid, qos
		}
		return "", ""
	}
	uid, ok := strings.CutPrefix(name, "pod")
	if !ok || !isPodUID(uid) {
		return "", ""
	}
	switch {
	case parent == "kubepods":
		return uid, Guaranteed
	case grandparent == "kubepods" && (parent == Burstable || parent == BestEffort):
		return uid, parent
	}
	return "", ""
}

// containerOf returns the container's id, and the runtime if the name tells, when name is a container's directory:
// PREFIX-ID.scope with the systemd driver, [PREFIX-]ID with cgroupfs. A runtime that is told the former and does the
// latter makes one directory SLICE:PREFIX:ID.
func containerOf(parent, name string) (id, runtime string) {
	name = strings.TrimSuffix(name, ".scope")
	if _, rest, ok := strings.Cut(name, ".slice:"); ok {
		name = strings.Replace(rest, ":", "-", 1)
	}
	prefix, id := "", name
	if i := strings.LastIndexByte(name, '-'); i > 0 {
		prefix, id = name[:i], name[i+1:]
	}
	if len(id) != 64 || !isHex(id) {
		return "", ""
	}
	switch prefix {
	case "":
		if parent == "docker" {
			return id, Docker
		}
		return id, ""
	case "cri-containerd", "nerdctl":
		return id, Containerd
	case "crio":
		return id, CRIO
	case "docker":
		return id, Docker
	case "libpod":
		return id, Podman
	}
	// Other prefixes are not known to be containers; crio-conmon and libpod-conmon are known to be their monitors.
	return "", ""
}

// isPodUID reports whether s is a UUID, or the MD5 sum that is the UID of a static pod.
func isPodUID(s string) bool {
	if len(s) == 32 {
		return isHex(s)
	}
	if len(s) != 36 {
		return false
	}
	for i := range len(s) {
		if dash := i == 8 || i == 13 || i == 18 || i == 23; dash != (s[i] == '-') || !dash && !isHexDigit(s[i]) {
			return false
		}
	}
	return true
}

func isHex(s string) bool {
	for i := range len(s) {
		if !isHexDigit(s[i]) {
			return false
		}
	}
	return true
}

func isHexDigit(c byte) bool { return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' }
