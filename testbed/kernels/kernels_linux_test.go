// Package kernels runs orb8's tests on other kernels than this machine's: it boots them in QEMU, by software emulation,
// with an initramfs of nothing but the tests.
package kernels

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/orb8/orb8/internal/testutil"
)

const (
	module = "github.com/orb8/orb8/"
	qemu   = "qemu-system-x86_64"
	// timeout is for a machine from boot to halt.
	timeout = 35 * time.Minute
)

// programs are what the machine runs, in the order in which it does: the CLI, to say which features are missing, and
// the tests of packages.
var programs = []struct {
	name, pkg string
	args      []string
}{
	{"orb8", "cmd/orb8", []string{"doctor"}},
	{"engine.test", "receiver/ebpfnetworkreceiver/internal/engine", []string{"-test.v", "-test.timeout=20m"}},
	{"syscalls.test", "receiver/ebpfsyscallreceiver/internal/engine", []string{"-test.v", "-test.timeout=20m"}},
	{"receiver.test", "receiver/ebpfnetworkreceiver", []string{"-test.v", "-test.timeout=20m"}},
	{"syscall-receiver.test", "receiver/ebpfsyscallreceiver", []string{"-test.v", "-test.timeout=20m"}},
	{cudaTests, "receiver/gpureceiver/internal/cuda", []string{"-test.v", "-test.timeout=20m"}},
}

// cudaTests call C programs, which they build with envCUDABuild, and find with envCUDABuilt where there is no compiler.
const (
	cudaTests    = "cuda.test"
	envCUDABuild = "ORB8_TEST_CUDA_BUILD"
	envCUDABuilt = "ORB8_TEST_CUDA"
)

// TestKernels boots every kernel in the cache; Debian's current one when there is none.
func TestKernels(t *testing.T) {
	testutil.Require(t, "kernels", runtime.GOARCH == "amd64", "the kernels are for amd64")
	for _, program := range []string{qemu, "apt-get", "dpkg"} {
		_, err := exec.LookPath(program)
		testutil.Require(t, "kernels", err == nil, program+" is not there: apt-get install qemu-system-x86 on Debian")
	}
	for _, k := range kernels(t) {
		t.Run(k.version(), func(t *testing.T) {
			outputs := boot(t, k, initrd(t, k))
			for i, p := range programs {
				t.Run(p.name, func(t *testing.T) {
					require.Greater(t, len(outputs), i, "the machine halted before it got to this")
					t.Logf("%s", outputs[i].text)
					assert.Zero(t, outputs[i].code, "exit code")
				})
			}
		})
	}
}

// required is what the tests must not skip. Older kernels know no reasons of drops.
func (k *kernel) required() string {
	var major int
	if n, _ := fmt.Sscanf(k.version(), "%d.", &major); n == 1 && major < 6 {
		return "bpf,cc"
	}
	return "bpf,drops,cc,fentry"
}

// initrd builds the guest and the programs and packs them into an archive.
func initrd(t *testing.T, k *kernel) string {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "initrd")
	f, err := os.Create(path)
	require.NoError(t, err)
	defer f.Close()
	archive := newInitramfs(f)
	archive.copy("init", build(t, dir, "init", "testbed/kernels/guest"))
	for _, d := range []string{"bin", "modules", "src", "dev", "proc", "sys", "tmp"} {
		archive.directory(d)
	}
	var commands [][]string
	for _, p := range programs {
		archive.copy("bin/"+p.name, build(t, dir, p.name, p.pkg))
		archive.tree("src/"+p.name, filepath.Join("../..", p.pkg), "*.yaml", "testdata")
		commands = append(commands, append([]string{"/bin/" + p.name}, p.args...))
	}
	archive.cStubs(t, filepath.Join(dir, cudaTests))
	text, err := json.Marshal(commands)
	require.NoError(t, err)
	archive.file("commands.json", text)
	modules, err := k.closure("veth", "sch_ingress", "cls_bpf", "nf_tables", "xfrm_user", "overlay")
	require.NoError(t, err)
	for i, m := range modules {
		archive.copy(fmt.Sprintf("modules/%03d-%s", i, filepath.Base(m)), m)
	}
	require.NoError(t, archive.close())
	return path
}

// cStubs adds the C programs of the tests of CUDA, and the C library that they are linked with.
func (i *initramfs) cStubs(t *testing.T, tests string) {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command(tests)
	cmd.Env = append(os.Environ(), envCUDABuild+"="+dir)
	text, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", text)
	i.tree("cuda", dir, "*")
	for _, d := range []string{"lib", "lib/x86_64-linux-gnu", "lib64"} {
		i.directory(d)
	}
	i.copy("lib64/ld-linux-x86-64.so.2", "/lib64/ld-linux-x86-64.so.2")
	i.copy("lib/x86_64-linux-gnu/libc.so.6", "/lib/x86_64-linux-gnu/libc.so.6")
}

// build compiles a command, or the tests of a package, statically: the guest has no libraries.
func build(t *testing.T, dir, name, pkg string) string {
	t.Helper()
	out := filepath.Join(dir, name)
	args := []string{"build"}
	if strings.HasSuffix(name, ".test") {
		args = []string{"test", "-c"}
	}
	cmd := exec.Command("go", append(args, "-ldflags=-s -w", "-o", out, module+pkg)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	text, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", text)
	return out
}

// output is what a program wrote, and its exit code.
type output struct {
	text string
	code int
}

// boot runs the machine until it halts.
func boot(t *testing.T, k *kernel, initrd string) []output {
	t.Helper()
	console, results := filepath.Join(t.TempDir(), "console"), filepath.Join(t.TempDir(), "results")
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	// Of one thread: with one a CPU, QEMU 7.2 may keep a breakpoint that the kernel puts into its own code for a moment when a
	// tracepoint is switched, and both CPUs run into it for ever.
	cmd := exec.CommandContext(ctx, qemu,
		"-accel", "tcg,thread=single", "-cpu", "max", "-smp", "2", "-m", "1024",
		"-nodefaults", "-display", "none", "-no-reboot",
		"-serial", "file:"+console, "-serial", "file:"+results,
		"-kernel", k.image, "-initrd", initrd, "-append", "console=ttyS0 panic=-1 loglevel=4 "+testutil.EnvRequire+"="+k.required()+" "+envCUDABuilt+"=/cuda")
	text, err := cmd.CombinedOutput()
	messages, _ := os.ReadFile(console)
	require.NoError(t, err, "%s\nconsole:\n%s", text, messages)
	written, err := os.ReadFile(results)
	require.NoError(t, err)
	t.Logf("console:\n%s", messages)
	return parse(written)
}

// parse splits what the guest wrote at its "exit CODE" lines. A program without such a line did not end: code -1.
func parse(written []byte) []output {
	var all []output
	var text strings.Builder
	for line := range strings.Lines(string(bytes.ReplaceAll(written, []byte("\r"), nil))) {
		var code int
		if n, _ := fmt.Sscanf(line, "exit %d\n", &code); n == 1 {
			all = append(all, output{text.String(), code})
			text.Reset()
			continue
		}
		text.WriteString(line)
	}
	if text.Len() > 0 {
		all = append(all, output{text.String(), -1})
	}
	return all
}
