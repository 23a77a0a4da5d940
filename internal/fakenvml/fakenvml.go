// Package fakenvml is NVIDIA's management library for tests: a real shared library, whose GPUs are those of a file. The package builds
// it with gcc.
package fakenvml

import (
	"embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/orb8/orb8/internal/testutil"
)

// Env names the environment variable with the path of the file of GPUs. c/nvml.c says what is in it.
const Env = "ORB8_FAKE_NVML"

// Name of the library's file.
const Name = "libnvidia-ml.so.1"

//go:embed c/nvml.c
var source string

//go:embed scenarios
var scenarios embed.FS

// Scenario returns the GPUs of a file in scenarios.
func Scenario(name string) string {
	content, err := scenarios.ReadFile("scenarios/" + name + ".txt")
	if err != nil {
		panic(err)
	}
	return string(content)
}

// RequireCompiler skips the test where the library cannot be built.
func RequireCompiler(t testing.TB) {
	t.Helper()
	_, err := exec.LookPath("gcc")
	testutil.Require(t, "gcc", err == nil, "gcc is not installed")
}

// Build puts the library into a folder, and returns its path. Defines are of the C preprocessor: OLD_DRIVER leaves out what drivers before
// 2021 do not have. A process can load one such library in its life: what it calls is bound to the first.
func Build(dir string, defines ...string) (string, error) {
	module := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/NVIDIA/go-nvml")
	header, err := module.Output()
	if err != nil {
		return "", fmt.Errorf("cannot find nvml.h: %w", err)
	}
	path := filepath.Join(dir, Name)
	args := []string{
		"-Wall", "-Wextra", "-Werror", "-Wno-deprecated-declarations", "-O1", "-shared", "-fPIC", "-pthread",
		"-I" + filepath.Join(strings.TrimSpace(string(header)), "pkg", "nvml"), "-x", "c", "-o", path, "-",
	}
	for _, d := range defines {
		args = append([]string{"-D" + d}, args...)
	}
	gcc := exec.Command("gcc", args...)
	gcc.Stdin = strings.NewReader(source)
	if out, err := gcc.CombinedOutput(); err != nil {
		return "", fmt.Errorf("cannot build %s: %w: %s", Name, err, out)
	}
	return path, nil
}

// GPUs are those of a file, which a library in this process or in those that it starts reads.
type GPUs struct {
	t testing.TB
	// Path of the file.
	Path string
}

// New writes a file of GPUs, and has this process read it.
func New(t testing.TB, content string) *GPUs {
	t.Helper()
	g := &GPUs{t: t, Path: filepath.Join(t.TempDir(), "gpus.txt")}
	g.Set(content)
	t.Setenv(Env, g.Path)
	return g
}

// Set replaces the GPUs, at once.
func (g *GPUs) Set(content string) {
	g.t.Helper()
	next := g.Path + ".next"
	require.NoError(g.t, os.WriteFile(next, []byte(content), 0o644))
	require.NoError(g.t, os.Rename(next, g.Path))
}

// Append adds to the GPUs, such as events.
func (g *GPUs) Append(lines string) {
	g.t.Helper()
	content, err := os.ReadFile(g.Path)
	require.NoError(g.t, err)
	g.Set(string(content) + lines)
}

// Held returns what the library has given out and not got back: sessions, and samples of GPM.
func (g *GPUs) Held() (sessions, samples int) {
	g.t.Helper()
	content, err := os.ReadFile(g.Path + ".held")
	require.NoError(g.t, err)
	_, err = fmt.Sscan(string(content), &sessions, &samples)
	require.NoError(g.t, err)
	return sessions, samples
}

// Node returns a scenario of so many GPUs with so many processes each. They are H100s.
func Node(gpus, processes int) string {
	var b strings.Builder
	b.WriteString("version 580.82.07\n")
	for i := range gpus {
		_, device, _ := strings.Cut(Scenario("h100"), "device 0\n")
		device = strings.ReplaceAll(device, "b1000000-0000-0000-0000-000000000000", fmt.Sprintf("b1000000-0000-0000-0000-%012d", i))
		fmt.Fprintf(&b, "device %d\n%s", i, device)
		for p := range processes {
			fmt.Fprintf(&b, "process c %d %d 4294967295 4294967295\n", 1000+i*processes+p, 1<<30)
			fmt.Fprintf(&b, "sample %d 9000000000000000 10 5 0 0\n", 1000+i*processes+p)
		}
	}
	return b.String()
}
