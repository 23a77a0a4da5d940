//go:build linux

package cluster

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"github.com/orb8/orb8/internal/ociimage"
)

// WorkloadImage is an image whose entry point is the command workload, in the folder of that name: `serve`, `call` and
// `pause` are the first of its arguments.
const WorkloadImage = "orb8.test/workload:1"

// importWorkload builds the images of the test bed and imports them: one for pods, and one that holds a pod's namespaces.
func (c *Cluster) importWorkload(ctx context.Context) error {
	_, here, _, _ := runtime.Caller(0)
	program := filepath.Join(c.dir, "workload")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, ".")
	build.Dir = filepath.Join(filepath.Dir(here), "workload")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // an image has no libraries
	if _, err := output(build); err != nil {
		return fmt.Errorf("cannot build the workload: %w", err)
	}
	for name, command := range map[string][]string{WorkloadImage: nil, pauseImage: {"pause"}} {
		if err := c.importImage(ctx, ociimage.Image{
			Name: name, Architecture: runtime.GOARCH,
			Config: ociimage.Config{Entrypoint: []string{"/workload"}, Cmd: command},
			Layers: []ociimage.Layer{{CreatedBy: "testbed", Files: []ociimage.File{{Path: "/workload", Mode: 0o755, Source: program}}}},
		}); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) importImage(ctx context.Context, image ociimage.Image) error {
	f, err := os.CreateTemp(c.dir, "image-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if _, err := ociimage.Write(f, image); err != nil {
		return err
	}
	return c.Import(ctx, f.Name())
}
