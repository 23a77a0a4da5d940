package podresources

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

const uuid = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9"

func TestParseDevice(t *testing.T) {
	for id, want := range map[string]Device{
		"GPU-" + uuid:                  {UUID: "GPU-" + uuid, Minor: None, GPUInstance: None, ComputeInstance: None},
		"GPU-" + uuid + "::3":          {UUID: "GPU-" + uuid, Minor: None, GPUInstance: None, ComputeInstance: None, Replica: "3"},
		"GPU-" + uuid + "-12":          {UUID: "GPU-" + uuid, Minor: None, GPUInstance: None, ComputeInstance: None, Replica: "12"},
		"MIG-" + uuid:                  {UUID: "MIG-" + uuid, Minor: None, GPUInstance: None, ComputeInstance: None},
		"MIG-" + uuid + "::0":          {UUID: "MIG-" + uuid, Minor: None, GPUInstance: None, ComputeInstance: None, Replica: "0"},
		"MIG-GPU-" + uuid + "/7/0":     {Parent: "GPU-" + uuid, Minor: None, GPUInstance: 7, ComputeInstance: 0},
		"MIG-GPU-" + uuid + "/11/1::2": {Parent: "GPU-" + uuid, Minor: None, GPUInstance: 11, ComputeInstance: 1, Replica: "2"},
		"nvidia0":                      {Minor: 0, GPUInstance: None, ComputeInstance: None},
		"nvidia12/gi3":                 {Minor: 12, GPUInstance: 3, ComputeInstance: None},
		"nvidia1/vgpu5":                {Minor: 1, GPUInstance: None, ComputeInstance: None, Replica: "5"},
		"nvidia1/gi9/vgpu0":            {Minor: 1, GPUInstance: 9, ComputeInstance: None, Replica: "0"},
		"GPU-" + strings.ToUpper(uuid): {UUID: "GPU-" + strings.ToUpper(uuid), Minor: None, GPUInstance: None, ComputeInstance: None},
	} {
		want.ID = id
		got, ok := ParseDevice(id)
		assert.True(t, ok, id)
		assert.Equal(t, want, got)
	}
	for _, id := range []string{
		"", "0", "nvidia", "nvidia99999", "nvidiactl", "nvidia-uvm", "GPU-" + uuid[1:], "GPU-" + uuid + "::", "GPU-" + uuid + "/1", "MIG-GPU-" + uuid, uuid,
		"0000:17:00.0", "sriov-vf-3", "GPU-" + uuid + "\n",
	} {
		_, ok := ParseDevice(id)
		assert.False(t, ok, "%q", id)
	}
}

// What is taken for a GPU's is named by a UUID, by its parent or by its number, and by one of them alone.
func FuzzParseDevice(f *testing.F) {
	for _, id := range []string{"GPU-" + uuid + "::3", "MIG-GPU-" + uuid + "/7/0", "nvidia0/gi3/vgpu1", "nvidia1"} {
		f.Add(id)
	}
	f.Fuzz(func(t *testing.T, id string) {
		d, ok := ParseDevice(id)
		if !ok {
			return
		}
		ways := 0
		for _, known := range []bool{d.UUID != "", d.Parent != "", d.Minor != None} {
			if known {
				ways++
			}
		}
		if ways != 1 || d.ID != id || d.Parent != "" && (d.GPUInstance == None || d.ComputeInstance == None) {
			t.Fatalf("%q: %+v", id, d)
		}
	})
}
