//go:build linux

package cluster

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// envCache names the environment variable of the directory that keeps what was built or downloaded; the default is orb8
// in the user's cache directory. The test bed's kernels are in the same place.
const envCache = "ORB8_CACHE"

// Versions of what is built from the Go module proxy.
const (
	KubernetesVersion = "v1.37.2"
	KwokVersion       = "v0.8.0"
)

// module is a Go module whose commands are built into a directory of the cache that has its version in its name.
type module struct {
	path, version, dir string
	commands           []command
}

// command is a program of a module. Parts of a cluster need few of them, so that each is built when it is missed.
type command struct{ name, pkg string }

var (
	kubernetesModule = module{
		path: "k8s.io/kubernetes", version: KubernetesVersion, dir: KubernetesVersion,
		// In the order in which tests can use them.
		commands: []command{
			{"kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"},
			{"kubectl", "k8s.io/kubernetes/cmd/kubectl"},
			{"kubelet", "k8s.io/kubernetes/cmd/kubelet"},
			{"kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager"},
			{"kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"},
			{"kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy"},
		},
	}
	kwokModule = module{
		path: "sigs.k8s.io/kwok", version: KwokVersion, dir: "kwok-" + KwokVersion,
		commands: []command{{"kwok", "sigs.k8s.io/kwok/cmd/kwok"}},
	}
)

// stages are the files of kwok's module that make simulated nodes ready and their pods running: kwok has none built in.
var stages = []string{
	"node/fast/node-initialize.yaml", "node/heartbeat-with-lease/node-heartbeat-with-lease.yaml",
	"pod/fast/pod-ready.yaml", "pod/fast/pod-complete.yaml", "pod/fast/pod-delete.yaml",
}

const stagesFile = "stages.yaml"

// cache is the directory of programs.
type cache string

func openCache() (cache, error) {
	dir := os.Getenv(envCache)
	if dir == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("cannot find a cache directory, set %s: %w", envCache, err)
		}
		dir = filepath.Join(user, "orb8")
	}
	return cache(filepath.Join(dir, "kubernetes")), nil
}

// Build builds and downloads what a cluster needs and is not in the cache yet, and says on progress what it does. The
// first time takes about ten minutes on two cores, most of it kube-apiserver's. Of several callers one works, the
// others wait.
func Build(ctx context.Context, progress io.Writer) error {
	c, err := openCache()
	if err != nil {
		return err
	}
	for _, step := range []func(context.Context, io.Writer) error{
		c.debian,
		func(ctx context.Context, w io.Writer) error { return c.module(ctx, w, kubernetesModule) },
		func(ctx context.Context, w io.Writer) error { return c.module(ctx, w, kwokModule) },
		c.stages,
	} {
		if err := step(ctx, progress); err != nil {
			return err
		}
	}
	return nil
}

// missing returns an error that names what cannot run yet of the programs of Kubernetes, or of the Debian packages.
func (c cache) missing(programs ...string) error {
	_, err := c.debianRoot()
	for _, name := range programs {
		_, e := c.program(kubernetesModule, name)
		err = errors.Join(err, e)
	}
	return err
}

// program returns the path of a built program, or an error that says how to build it.
func (c cache) program(m module, name string) (string, error) {
	path := filepath.Join(string(c), m.dir, name)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("%s %s is not built: run `make cluster-build` (%w)", name, m.version, err)
	}
	return path, nil
}

// module builds those commands of m that are missing.
func (c cache) module(ctx context.Context, progress io.Writer, m module) error {
	dir := filepath.Join(string(c), m.dir)
	return locked(dir, func() error {
		src := filepath.Join(dir, "src")
		for _, command := range m.commands {
			out := filepath.Join(dir, command.name)
			if _, err := os.Stat(out); err == nil {
				continue
			}
			if err := m.writeGoMod(ctx, src); err != nil {
				return err
			}
			start := time.Now()
			fmt.Fprintf(progress, "building %s %s\n", command.name, m.version)
			// A build that is cut off leaves no program under the name.
			tmp := filepath.Join(src, command.name)
			if _, err := goTool(ctx, src, "build", "-trimpath", "-ldflags", m.ldflags(), "-o", tmp, command.pkg); err != nil {
				return fmt.Errorf("cannot build %s %s: %w", command.name, m.version, err)
			}
			if err := os.Rename(tmp, out); err != nil {
				return err
			}
			fmt.Fprintf(progress, "built %s in %s\n", command.name, time.Since(start).Round(time.Second))
		}
		return nil
	})
}

// ldflags stamp the version as Kubernetes' own build does: without, its programs take each other for v0.0.0 and refuse
// to work together.
func (m module) ldflags() string {
	flags := []string{"-s", "-w"}
	major, minor, _ := strings.Cut(strings.TrimPrefix(m.version, "v"), ".")
	minor, _, _ = strings.Cut(minor, ".")
	for _, pkg := range []string{"k8s.io/component-base/version", "k8s.io/client-go/pkg/version"} {
		for _, value := range []string{"gitVersion=" + m.version, "gitMajor=" + major, "gitMinor=" + minor, "gitTreeState=clean"} {
			flags = append(flags, "-X "+pkg+"."+value)
		}
	}
	return strings.Join(flags, " ")
}

// staging is a replacement of Kubernetes' go.mod by a folder of its own repository, which is a module of its own too.
var staging = regexp.MustCompile(`(?m)^\s*(k8s\.io/[\w-]+) => \./staging/`)

// writeGoMod writes a go.mod for the build.
func (m module) writeGoMod(ctx context.Context, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	downloaded, err := m.download(ctx, dir)
	if err != nil {
		return err
	}
	original, err := os.ReadFile(downloaded.GoMod)
	if err != nil {
		return err
	}
	text, err := m.goMod(original)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "go.mod"), text, 0o644)
}

// goMod returns a go.mod that requires the module and nothing else. A module's own replacements count only where it is
// the main module, so those by folders of its repository become versions.
func (m module) goMod(original []byte) ([]byte, error) {
	var b bytes.Buffer
	fmt.Fprintln(&b, "module orb8.local/build")
	version := false
	for line := range strings.Lines(string(original)) {
		if strings.HasPrefix(line, "go ") || strings.HasPrefix(line, "godebug ") {
			b.WriteString(line)
			version = version || strings.HasPrefix(line, "go ")
		}
	}
	if !version {
		return nil, fmt.Errorf("go.mod of %s says no version of Go", m.path)
	}
	fmt.Fprintf(&b, "require %s %s\n", m.path, m.version)
	for _, match := range staging.FindAllSubmatch(original, -1) {
		fmt.Fprintf(&b, "replace %s => %s v0.%s\n", match[1], match[1], strings.TrimPrefix(m.version, "v1."))
	}
	return b.Bytes(), nil
}

// download returns where the go command keeps the module.
func (m module) download(ctx context.Context, dir string) (d struct{ Dir, GoMod string }, err error) {
	text, err := goTool(ctx, dir, "mod", "download", "-json", m.path+"@"+m.version)
	if err != nil {
		return d, fmt.Errorf("cannot download %s: %w", m.path, err)
	}
	return d, json.Unmarshal(text, &d)
}

func goTool(ctx context.Context, dir string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	// The go.mod is completed as the build goes on, and programs without cgo need none of the machine's libraries.
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off", "CGO_ENABLED=0")
	return output(cmd)
}

// output runs a command; its error has what the command wrote to stderr.
func output(cmd *exec.Cmd) ([]byte, error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, cmp.Or[io.Writer](cmd.Stderr, &stderr)
	if err := cmd.Run(); err != nil {
		return stdout.Bytes(), fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, &stderr)
	}
	return stdout.Bytes(), nil
}

// stages puts kwok's stages into one file beside it.
func (c cache) stages(ctx context.Context, _ io.Writer) error {
	dir := filepath.Join(string(c), kwokModule.dir)
	return locked(dir, func() error {
		out := filepath.Join(dir, stagesFile)
		if _, err := os.Stat(out); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		downloaded, err := kwokModule.download(ctx, dir)
		if err != nil {
			return err
		}
		var b bytes.Buffer
		for _, name := range stages {
			text, err := os.ReadFile(filepath.Join(downloaded.Dir, "kustomize", "stage", name))
			if err != nil {
				return fmt.Errorf("cannot read a stage of kwok %s: %w", kwokModule.version, err)
			}
			b.Write(text)
			b.WriteString("\n---\n")
		}
		return writeFile(out, b.Bytes(), 0o644)
	})
}

// locked runs f while no other process works in dir, which is made if it is not there. The lock dies with its process.
func locked(dir string, f func() error) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	lock, err := os.OpenFile(filepath.Join(dir, ".lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	defer lock.Close()
	for {
		if err = unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != unix.EINTR {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("cannot lock %s: %w", lock.Name(), err)
	}
	return f()
}

// writeFile replaces a file as a whole.
func writeFile(path string, content []byte, mode fs.FileMode) error {
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, content, mode); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
