//go:build linux

package container

import (
	"encoding/json"
	"path"
	"slices"
)

// The parts of the OCI runtime specification that are used here.
type (
	spec struct {
		Version string  `json:"ociVersion"`
		Process process `json:"process"`
		Root    root    `json:"root"`
		Mounts  []mount `json:"mounts"`
		Hooks   hooks   `json:"hooks"`
		Linux   linux   `json:"linux"`
	}
	process struct {
		User            user         `json:"user"`
		Args            []string     `json:"args"`
		Env             []string     `json:"env"`
		Dir             string       `json:"cwd"`
		Capabilities    capabilities `json:"capabilities"`
		NoNewPrivileges bool         `json:"noNewPrivileges"`
	}
	user struct {
		UID uint32 `json:"uid"`
		GID uint32 `json:"gid"`
	}
	capabilities struct {
		Bounding  []string `json:"bounding"`
		Effective []string `json:"effective"`
		Permitted []string `json:"permitted"`
	}
	root struct {
		Path string `json:"path"`
	}
	mount struct {
		Destination string   `json:"destination"`
		Type        string   `json:"type"`
		Source      string   `json:"source"`
		Options     []string `json:"options,omitempty"`
	}
	hooks struct {
		CreateRuntime []hook `json:"createRuntime"`
	}
	hook struct {
		Path string   `json:"path"`
		Env  []string `json:"env"`
	}
	linux struct {
		CgroupsPath string          `json:"cgroupsPath"`
		Namespaces  []namespace     `json:"namespaces"`
		Seccomp     json.RawMessage `json:"seccomp,omitempty"`
	}
	namespace struct {
		Type string `json:"type"`
	}
)

// specOf returns the configuration of a container with a cgroup of the name id, which is the directory group. self is this program.
func specOf(id, group, self string, o Options) spec {
	capable := []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_SYS_CHROOT"}
	return spec{
		Version: "1.0.2",
		Process: process{
			User:            user{o.User, o.User},
			Args:            slices.Concat([]string{"/bin/busybox"}, o.Command),
			Env:             []string{"PATH=/bin"},
			Dir:             "/",
			Capabilities:    capabilities{capable, capable, capable},
			NoNewPrivileges: o.NoNewPrivileges,
		},
		Root: root{"rootfs"},
		Mounts: []mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid"}},
			{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "nodev"}},
		},
		Hooks: hooks{CreateRuntime: []hook{{Path: self, Env: []string{hookVariable + "=" + group}}}},
		Linux: linux{
			CgroupsPath: path.Join("/", id),
			Namespaces:  []namespace{{"pid"}, {"network"}, {"ipc"}, {"uts"}, {"mount"}},
			Seccomp:     o.Seccomp,
		},
	}
}
