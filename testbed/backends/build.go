//go:build linux

package backends

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// envCache names the environment variable of the directory that keeps what was built; the default is orb8 in the user's cache
// directory, as for the test bed's Kubernetes.
const envCache = "ORB8_CACHE"

// engine is a program, and the folder of the module that pins it.
type engine struct{ name, module, pkg, tags string }

var (
	victoriaLogs = engine{"victoria-logs", "victorialogs", "github.com/VictoriaMetrics/VictoriaMetrics/app/victoria-logs", ""}
	loki         = engine{"loki", "loki", "github.com/grafana/loki/v3/cmd/loki", ""}
	// Service discoveries of clouds are most of what Prometheus is built of.
	prometheus = engine{"prometheus", "prometheus", "github.com/prometheus/prometheus/cmd/prometheus", "remove_all_sd"}
)

// Build builds the engines that are not in the cache yet, and says on progress what it does. The first time takes about seven
// minutes on two cores, most of it Loki's. Of several callers one works, the others wait.
func Build(ctx context.Context, progress io.Writer) error {
	for _, e := range []engine{victoriaLogs, loki, prometheus} {
		if err := e.build(ctx, progress); err != nil {
			return err
		}
	}
	return nil
}

// source is the folder of the engine's module.
func (e engine) source() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), e.module)
}

// path returns where the program is kept. Its name tells what pins it, so that another version is another program.
func (e engine) path() (string, error) {
	dir := os.Getenv(envCache)
	if dir == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("cannot find a cache directory, set %s: %w", envCache, err)
		}
		dir = filepath.Join(user, "orb8")
	}
	h := sha256.New()
	for _, name := range []string{"go.mod", "go.sum"} {
		text, err := os.ReadFile(filepath.Join(e.source(), name))
		if err != nil {
			return "", fmt.Errorf("cannot read what pins %s: %w", e.name, err)
		}
		h.Write(text)
	}
	return filepath.Join(dir, "backends", fmt.Sprintf("%s-%x", e.name, h.Sum(nil)[:6])), nil
}

// program returns the path of the built program, or an error that says how to build it.
func (e engine) program() (string, error) {
	path, err := e.path()
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("%s is not built: run `make backends-build` (%w)", e.name, err)
	}
	return path, nil
}

func (e engine) build(ctx context.Context, progress io.Writer) error {
	path, err := e.path()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	lock, err := os.OpenFile(filepath.Join(filepath.Dir(path), "."+e.name+".lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("cannot lock %s: %w", lock.Name(), err)
	}
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	start := time.Now()
	fmt.Fprintf(progress, "building %s\n", e.name)
	// A build that is cut off leaves no program under the name.
	tmp := path + ".tmp"
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-tags="+e.tags, "-o", tmp, e.pkg)
	cmd.Dir = e.source()
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=readonly", "GOWORK=off", "CGO_ENABLED=0")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("cannot build %s: %w\n%s", e.name, err, &out)
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	fmt.Fprintf(progress, "built %s in %s\n", e.name, time.Since(start).Round(time.Second))
	return nil
}
