package cgroup

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

const (
	testUID   = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9"
	testUID_  = "0a1b2c3d_4e5f_6071_8293_a4b5c6d7e8f9"
	staticUID = "9f86d081884c7d659a2feaa0c55ad015"
)

var (
	testID  = strings.Repeat("0123456789abcdef", 4)
	otherID = strings.Repeat("fedcba9876543210", 4)
)

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		name, path string
		want       Identity
	}{
		// Kubernetes, systemd driver.
		{
			name: "containerd burstable",
			path: "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + testUID_ + ".slice/cri-containerd-" + testID + ".scope",
			want: Identity{ContainerID: testID, Runtime: Containerd, PodUID: testUID, QOSClass: Burstable},
		},
		{
			name: "containerd besteffort",
			path: "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod" + testUID_ + ".slice/cri-containerd-" + testID + ".scope",
			want: Identity{ContainerID: testID, Runtime: Containerd, PodUID: testUID, QOSClass: BestEffort},
		},
		{
			name: "containerd guaranteed has no slice of its class",
			path: "/kubepods.slice/kubepods-pod" + testUID_ + ".slice/cri-containerd-" + testID + ".scope",
			want: Identity{ContainerID: testID, Runtime: Containerd, PodUID: testUID, QOSClass: Guaranteed},
		},
		{
			name: "cri-o",
			path: "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + testUID_ + ".slice/crio-" + testID + ".scope",
			want: Identity{ContainerID: testID, Runtime: CRIO, PodUID: testUID, QOSClass: Burstable},
		},
		{
			name: "cri-o with a cgroup below the container's",
			path: "/kubepods.slice/kubepods-pod" + testUID_ + ".slice/crio-" + testID + ".scope/container",
			want: Identity{ContainerID: testID, Runtime: CRIO, PodUID: testUID, QOSClass: Guaranteed},
		},
		{
			name: "the monitor of a cri-o container is in the pod but in no container",
			path: "/kubepods.slice/kubepods-pod" + testUID_ + ".slice/crio-conmon-" + testID + ".scope",
			want: Identity{PodUID: testUID, QOSClass: Guaranteed, Unit: "crio-conmon-" + testID + ".scope"},
		},
		{
			name: "docker below the kubelet",
			path: "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod" + testUID_ + ".slice/docker-" + testID + ".scope",
			want: Identity{ContainerID: testID, Runtime: Docker, PodUID: testUID, QOSClass: BestEffort},
		},
		{
			name: "static pod",
			path: "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + staticUID + ".slice/cri-containerd-" + testID + ".scope",
			want: Identity{ContainerID: testID, Runtime: Containerd, PodUID: staticUID, QOSClass: Burstable},
		},
		{
			name: "the pod's own cgroup",
			path: "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + testUID_ + ".slice",
			want: Identity{PodUID: testUID, QOSClass: Burstable},
		},
		{
			name: "systemd inside a container",
			path: "/kubepods.slice/kubepods-pod" + testUID_ + ".slice/cri-containerd-" + testID + ".scope/system.slice/nginx.service",
			want: Identity{ContainerID: testID, Runtime: Containerd, PodUID: testUID, QOSClass: Guaranteed},
		},
		{
			name: "docker inside a container is the container's",
			path: "/kubepods.slice/kubepods-pod" + testUID_ + ".slice/cri-containerd-" + testID + ".scope/docker/" + otherID,
			want: Identity{ContainerID: testID, Runtime: Containerd, PodUID: testUID, QOSClass: Guaranteed},
		},
		{
			name: "kind: the pod, not the container that plays the node",
			path: "/system.slice/docker-" + otherID + ".scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/" +
				"kubelet-kubepods-besteffort-pod" + testUID_ + ".slice/cri-containerd-" + testID + ".scope",
			want: Identity{ContainerID: testID, Runtime: Containerd, PodUID: testUID, QOSClass: BestEffort},
		},
		{
			name: "kind: a guaranteed pod",
			path: "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod" + testUID_ + ".slice/cri-containerd-" + testID + ".scope",
			want: Identity{ContainerID: testID, Runtime: Containerd, PodUID: testUID, QOSClass: Guaranteed},
		},
		{
			name: "kind: the kubelet of the node in a container",
			path: "/system.slice/docker-" + otherID + ".scope/kubelet.slice/kubelet.service",
			want: Identity{ContainerID: otherID, Runtime: Docker},
		},
		{
			name: "slice, prefix and id in one directory",
			path: "/system.slice/containerd.service/kubepods-burstable-pod" + testUID_ + ".slice:cri-containerd:" + testID,
			want: Identity{ContainerID: testID, Runtime: Containerd, PodUID: testUID, QOSClass: Burstable},
		},
		// Kubernetes, cgroupfs driver.
		{
			name: "cgroupfs burstable",
			path: "/kubepods/burstable/pod" + testUID + "/" + testID,
			want: Identity{ContainerID: testID, PodUID: testUID, QOSClass: Burstable},
		},
		{
			name: "cgroupfs besteffort",
			path: "/kubepods/besteffort/pod" + testUID + "/" + testID,
			want: Identity{ContainerID: testID, PodUID: testUID, QOSClass: BestEffort},
		},
		{
			name: "cgroupfs guaranteed",
			path: "/kubepods/pod" + testUID + "/" + testID,
			want: Identity{ContainerID: testID, PodUID: testUID, QOSClass: Guaranteed},
		},
		{
			name: "cgroupfs static pod",
			path: "/kubepods/pod" + staticUID + "/" + testID,
			want: Identity{ContainerID: testID, PodUID: staticUID, QOSClass: Guaranteed},
		},
		{
			name: "cgroupfs cri-o",
			path: "/kubepods/burstable/pod" + testUID + "/crio-" + testID,
			want: Identity{ContainerID: testID, Runtime: CRIO, PodUID: testUID, QOSClass: Burstable},
		},
		{
			name: "cgroupfs monitor of a cri-o container",
			path: "/kubepods/burstable/pod" + testUID + "/crio-conmon-" + testID,
			want: Identity{PodUID: testUID, QOSClass: Burstable},
		},
		{
			name: "cgroupfs below a root of the kubelet's, and a cgroup below the container's",
			path: "/kubelet/kubepods/burstable/pod" + testUID + "/" + testID + "/init",
			want: Identity{ContainerID: testID, PodUID: testUID, QOSClass: Burstable},
		},
		{
			name: "k3d: the pod, not the container that plays the node",
			path: "/docker/" + otherID + "/kubepods/besteffort/pod" + testUID + "/" + testID,
			want: Identity{ContainerID: testID, PodUID: testUID, QOSClass: BestEffort},
		},
		{
			name: "k3s started by systemd",
			path: "/system.slice/k3s.service/kubepods/pod" + testUID + "/" + testID,
			want: Identity{ContainerID: testID, PodUID: testUID, QOSClass: Guaranteed},
		},
		{
			name: "the pod's own cgroup says nothing of what is around the pod",
			path: "/system.slice/docker-" + otherID + ".scope/kubepods/pod" + testUID,
			want: Identity{PodUID: testUID, QOSClass: Guaranteed},
		},
		// Containers without Kubernetes.
		{
			name: "docker, systemd driver",
			path: "/system.slice/docker-" + testID + ".scope",
			want: Identity{ContainerID: testID, Runtime: Docker},
		},
		{
			name: "docker, cgroupfs driver",
			path: "/docker/" + testID,
			want: Identity{ContainerID: testID, Runtime: Docker},
		},
		{
			name: "docker, rootless",
			path: "/user.slice/user-1000.slice/user@1000.service/user.slice/docker-" + testID + ".scope",
			want: Identity{ContainerID: testID, Runtime: Docker},
		},
		{
			name: "nerdctl",
			path: "/system.slice/nerdctl-" + testID + ".scope",
			want: Identity{ContainerID: testID, Runtime: Containerd},
		},
		{
			name: "podman",
			path: "/machine.slice/libpod-" + testID + ".scope/container",
			want: Identity{ContainerID: testID, Runtime: Podman},
		},
		{
			name: "podman, cgroupfs driver",
			path: "/libpod_parent/libpod-" + testID,
			want: Identity{ContainerID: testID, Runtime: Podman},
		},
		{
			name: "the monitor of a podman container",
			path: "/machine.slice/libpod-conmon-" + testID + ".scope",
			want: Identity{Unit: "libpod-conmon-" + testID + ".scope"},
		},
		{
			name: "a container of whatever made it",
			path: "/ecs/task/" + testID,
			want: Identity{ContainerID: testID},
		},
		// The host.
		{name: "root", path: "/"},
		{name: "empty", path: ""},
		{name: "service", path: "/system.slice/sshd.service", want: Identity{Unit: "sshd.service"}},
		{name: "init", path: "/init.scope", want: Identity{Unit: "init.scope"}},
		{name: "user session", path: "/user.slice/user-1000.slice/session-3.scope", want: Identity{Unit: "session-3.scope"}},
		{
			name: "innermost unit",
			path: "/user.slice/user-1000.slice/user@1000.service/app.slice/app-firefox-4711.scope",
			want: Identity{Unit: "app-firefox-4711.scope"},
		},
		{
			name: "a cgroup below a unit's is the unit's",
			path: "/system.slice/postgresql.service/workers/1",
			want: Identity{Unit: "postgresql.service"},
		},
		{
			name: "escaped by systemd",
			path: "/system.slice/_memory.service",
			want: Identity{Unit: "memory.service"},
		},
		{
			name: "a colon in a unit's name",
			path: "/user.slice/dbus-:1.2-org.example.Settings@0.service",
			want: Identity{Unit: "dbus-:1.2-org.example.Settings@0.service"},
		},
		{name: "a slice is no unit of processes", path: "/system.slice"},
		{name: "a plain directory", path: "/build/42"},
		// What looks like one of the above and is not.
		{name: "id too short", path: "/docker/" + testID[1:]},
		{name: "id too long", path: "/docker/" + testID + "0"},
		{name: "id in upper case", path: "/docker/" + strings.ToUpper(testID)},
		{name: "id after nothing but a dash", path: "/docker/-" + testID},
		{name: "another prefix", path: "/build-" + testID},
		{name: "a pod's name outside kubepods", path: "/burstable/pod" + testUID},
		{name: "a class that does not exist", path: "/kubepods/premium/pod" + testUID},
		{name: "no UID", path: "/kubepods/burstable/podium"},
		{name: "a UID with a dash too few", path: "/kubepods/pod" + strings.Replace(testUID, "-", "0", 1)},
		{name: "a slice of something else's pods", path: "/vm.slice/vm-pod" + testUID_ + ".slice"},
		{name: "a slice whose name only ends alike", path: "/mykubepods-pod" + testUID_ + ".slice"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.want.Path = tt.path
			assert.Equal(t, tt.want, Parse(tt.path))
		})
	}
}

// A pod's directory splits what is known of a path: above it nothing counts, below it everything does.
func TestParseIsIndependentOfWhatIsAbovePod(t *testing.T) {
	pod := "/kubepods/burstable/pod" + testUID + "/" + testID
	want := Parse(pod)
	for _, above := range []string{"/system.slice", "/docker/" + otherID, "/a/b/c", "/system.slice/k3s.service"} {
		got := Parse(above + pod)
		got.Path = want.Path
		assert.Equal(t, want, got, above)
	}
}

func FuzzParse(f *testing.F) {
	for _, path := range []string{
		"", "/", "//", ":", "/a:b", "/.slice", "/.slice:", "/-pod.slice", "/pod", "/kubepods/pod", "/-.scope",
		"/kubepods/burstable/pod" + testUID + "/" + testID,
		"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod" + testUID_ + ".slice/crio-" + testID + ".scope",
		"/system.slice/containerd.service/kubepods-pod" + testUID_ + ".slice:cri-containerd:" + testID,
		"/system.slice/docker-" + testID + ".scope/init.scope",
	} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		id := Parse(path)
		assert.Equal(t, path, id.Path)
		assert.True(t, id.ContainerID == "" || len(id.ContainerID) == 64 && isHex(id.ContainerID), "container id %q", id.ContainerID)
		assert.True(t, id.PodUID == "" || isPodUID(id.PodUID), "pod UID %q", id.PodUID)
		assert.Equal(t, id.PodUID == "", id.QOSClass == "", "pod %q of class %q", id.PodUID, id.QOSClass)
		assert.False(t, id.Unit != "" && id.ContainerID != "", "unit %q of container %q", id.Unit, id.ContainerID)
		assert.False(t, id.Runtime != "" && id.ContainerID == "", "runtime %q of no container", id.Runtime)
		assert.NotContains(t, id.Unit, "/")
	})
}

func BenchmarkParse(b *testing.B) {
	path := "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + testUID_ + ".slice/cri-containerd-" + testID + ".scope"
	b.ReportAllocs()
	for b.Loop() {
		Parse(path)
	}
}
