package arguments

import (
	"encoding/binary"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/syscalls"
)

var decoders = map[syscalls.ABI]*Decoder{syscalls.X86_64: New(syscalls.X86_64), syscalls.ARM64: New(syscalls.ARM64)}

func call(t testing.TB, abi syscalls.ABI, name string) syscalls.Call {
	t.Helper()
	c, err := syscalls.ParseCall(abi, name)
	require.NoError(t, err)
	return c
}

// strace writes arguments as NAME=VALUE, separated by commas.
func strace(arguments []syscalls.Argument) string {
	var all []string
	for _, a := range arguments {
		all = append(all, a.Name+"="+a.Value)
	}
	return strings.Join(all, ", ")
}

const garbage = 0xdeadbeef_00000000 // what an int's register may hold above it

func minus(n int64) uint64 { return uint64(-n) }

func TestDecode(t *testing.T) {
	str := func(s string) Memory { return Memory{Bytes: []byte(s), OK: true} }
	for _, tt := range []struct {
		call   string
		args   [6]uint64
		memory Memory
		want   string
	}{
		{"execve", [6]uint64{0x7f00}, str("/bin/sh"), "pathname=/bin/sh"},
		{"execve", [6]uint64{0x7f00}, Memory{}, "pathname=0x7f00"},
		{"execve", [6]uint64{0}, Memory{}, "pathname=NULL"},
		{"execve", [6]uint64{0x7f00}, Memory{Bytes: []byte("/a/very/long"), OK: true, Cut: true}, "pathname=/a/very/long..."},
		{"execveat", [6]uint64{3, 1, 0, 0, unix.AT_EMPTY_PATH}, str(""), "dirfd=3, pathname=, flags=AT_EMPTY_PATH"},
		{
			"openat", [6]uint64{minus(100), 1, unix.O_RDONLY | unix.O_CLOEXEC}, str("/etc/passwd"),
			"dirfd=AT_FDCWD, pathname=/etc/passwd, flags=O_RDONLY|O_CLOEXEC",
		},
		{
			"openat", [6]uint64{garbage | 0xffffff9c, 1, garbage | unix.O_RDWR | unix.O_CREAT | unix.O_SYNC}, str("x"),
			"dirfd=AT_FDCWD, pathname=x, flags=O_RDWR|O_SYNC|O_CREAT",
		},
		{
			"openat", [6]uint64{5, 1, unix.O_TMPFILE | unix.O_WRONLY | 0x40000000}, str("x"),
			"dirfd=5, pathname=x, flags=O_WRONLY|O_TMPFILE|0x40000000",
		},
		{"unlinkat", [6]uint64{4, 1, unix.AT_REMOVEDIR}, str("d"), "dirfd=4, pathname=d, flags=AT_REMOVEDIR"},
		{"fchmodat", [6]uint64{minus(100), 1, 0o4755}, str("su"), "dirfd=AT_FDCWD, pathname=su, mode=04755"},
		{"fchownat", [6]uint64{3, 1, 0, minus(1), 0}, str("f"), "dirfd=3, pathname=f, owner=0, group=-1, flags=0"},
		{"renameat2", [6]uint64{3, 1, 4, 2, unix.RENAME_EXCHANGE}, str("a"), "olddirfd=3, oldpath=a, newdirfd=4, flags=RENAME_EXCHANGE"},
		{"faccessat", [6]uint64{3, 1, 0}, str("f"), "dirfd=3, pathname=f, mode=F_OK"},
		{"faccessat", [6]uint64{3, 1, 5}, str("f"), "dirfd=3, pathname=f, mode=R_OK|X_OK"},
		{
			"mount", [6]uint64{1, 0x7ffc, 0x7ffd, unix.MS_BIND | unix.MS_REC}, str("/dev/sda1"),
			"source=/dev/sda1, mountflags=MS_BIND|MS_REC",
		},
		{"umount2", [6]uint64{1, unix.MNT_DETACH}, str("/mnt"), "target=/mnt, flags=MNT_DETACH"},
		{"open_tree", [6]uint64{minus(100), 1, 0x80001}, str("/"), "dirfd=AT_FDCWD, path=/, flags=OPEN_TREE_CLONE|OPEN_TREE_CLOEXEC"},
		{"ptrace", [6]uint64{unix.PTRACE_ATTACH, 42}, Memory{}, "request=PTRACE_ATTACH, pid=42, addr=NULL, data=0x0"},
		{"ptrace", [6]uint64{0x9999, 42, 1, 2}, Memory{}, "request=0x9999, pid=42, addr=0x1, data=0x2"},
		{"setns", [6]uint64{7, unix.CLONE_NEWNS | unix.CLONE_NEWTIME}, Memory{}, "fd=7, nstype=CLONE_NEWTIME|CLONE_NEWNS"},
		{"setns", [6]uint64{7, 0}, Memory{}, "fd=7, nstype=0"},
		{"unshare", [6]uint64{unix.CLONE_NEWUSER | unix.CLONE_NEWNS}, Memory{}, "flags=CLONE_NEWUSER|CLONE_NEWNS"},
		{"clone", [6]uint64{unix.CLONE_VM | unix.CLONE_VFORK | uint64(unix.SIGCHLD)}, Memory{}, "flags=CLONE_VM|CLONE_VFORK|SIGCHLD"},
		{"clone", [6]uint64{uint64(unix.SIGCHLD)}, Memory{}, "flags=SIGCHLD"},
		{"clone", [6]uint64{unix.CLONE_THREAD}, Memory{}, "flags=CLONE_THREAD"},
		{"kill", [6]uint64{minus(1), uint64(unix.SIGKILL)}, Memory{}, "pid=-1, sig=SIGKILL"},
		{"kill", [6]uint64{1, 0}, Memory{}, "pid=1, sig=0"},
		{"tgkill", [6]uint64{1, 2, 40}, Memory{}, "tgid=1, tid=2, sig=40"},
		{"wait4", [6]uint64{minus(1), 0x7f, garbage | unix.WNOHANG | unix.WUNTRACED}, Memory{}, "pid=-1, options=WNOHANG|WUNTRACED"},
		{"wait4", [6]uint64{42, 0, unix.WALL | unix.WCLONE}, Memory{}, "pid=42, options=__WALL|__WCLONE"},
		{"wait4", [6]uint64{42}, Memory{}, "pid=42, options=0"},
		{"bpf", [6]uint64{unix.BPF_PROG_LOAD, 0x7f, 144}, Memory{}, "cmd=BPF_PROG_LOAD, size=144"},
		{"bpf", [6]uint64{0}, Memory{}, "cmd=BPF_MAP_CREATE, size=0"},
		{"memfd_create", [6]uint64{1, unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING}, str("x"), "name=x, flags=MFD_CLOEXEC|MFD_ALLOW_SEALING"},
		{"prctl", [6]uint64{unix.PR_SET_NO_NEW_PRIVS, 1}, Memory{}, "option=PR_SET_NO_NEW_PRIVS, arg2=0x1"},
		{"setuid", [6]uint64{garbage}, Memory{}, "uid=0"},
		{"setresuid", [6]uint64{minus(1), 0, 4294967294}, Memory{}, "ruid=-1, euid=0, suid=4294967294"},
		{
			"socket", [6]uint64{unix.AF_PACKET, unix.SOCK_RAW | unix.SOCK_CLOEXEC, 768}, Memory{},
			"domain=AF_PACKET, type=SOCK_RAW|SOCK_CLOEXEC, protocol=768",
		},
		{"socket", [6]uint64{99, 15}, Memory{}, "domain=0x63, type=0xf, protocol=0"},
		{"ioctl", [6]uint64{0, unix.TIOCSTI, 0x7f}, Memory{}, "fd=0, request=TIOCSTI"},
		{"init_module", [6]uint64{1, 4096, 2}, str("debug=1"), "len=4096, param_values=debug=1"},
		{"keyctl", [6]uint64{unix.KEYCTL_JOIN_SESSION_KEYRING, minus(3)}, Memory{}, "operation=KEYCTL_JOIN_SESSION_KEYRING, arg2=-3"},
		{
			"mprotect", [6]uint64{0x1000, 8192, unix.PROT_READ | unix.PROT_WRITE | unix.PROT_EXEC}, Memory{},
			"addr=0x1000, len=8192, prot=PROT_READ|PROT_WRITE|PROT_EXEC",
		},
		{
			"mmap", [6]uint64{0, 4096, 0, unix.MAP_PRIVATE | unix.MAP_ANONYMOUS, minus(1), 0}, Memory{},
			"addr=NULL, length=4096, prot=0, flags=MAP_PRIVATE|MAP_ANONYMOUS, fd=-1, offset=0",
		},
		{
			"seccomp", [6]uint64{unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC}, Memory{},
			"operation=SECCOMP_SET_MODE_FILTER, flags=SECCOMP_FILTER_FLAG_TSYNC",
		},
		{"reboot", [6]uint64{1, 2, unix.LINUX_REBOOT_CMD_POWER_OFF}, Memory{}, "op=LINUX_REBOOT_CMD_POWER_OFF"},
		{"getppid", [6]uint64{1, 2, 3}, Memory{}, ""},
	} {
		for abi, decoder := range decoders {
			assert.Equal(t, tt.want, strace(decoder.Decode(call(t, abi, tt.call), &tt.args, tt.memory)), "%s of %s", tt.call, abi)
		}
	}
}

func TestSocketAddresses(t *testing.T) {
	family := func(f uint16, rest ...byte) []byte { return append(binary.NativeEndian.AppendUint16(nil, f), rest...) }
	inet6 := append([]byte{0x1f, 0x90, 0, 0, 0, 0}, make([]byte, 16)...)
	inet6[21] = 1
	for name, tt := range map[string]struct {
		memory Memory
		want   string
	}{
		"IPv4":                    {Memory{Bytes: family(unix.AF_INET, 0, 53, 127, 0, 0, 53, 0, 0, 0, 0, 0, 0, 0, 0), OK: true}, "127.0.0.53:53"},
		"IPv6":                    {Memory{Bytes: family(unix.AF_INET6, append(inet6, 9, 0, 0, 0)...), OK: true}, "[::1]:8080"},
		"path":                    {Memory{Bytes: family(unix.AF_UNIX, []byte("/run/docker.sock\x00")...), OK: true}, "/run/docker.sock"},
		"path without its zero":   {Memory{Bytes: family(unix.AF_UNIX, []byte("/run/docker.sock")...), OK: true}, "/run/docker.sock"},
		"path longer than it is":  {Memory{Bytes: family(unix.AF_UNIX, []byte("/run\x00garbage")...), OK: true, Cut: true}, "/run"},
		"path cut":                {Memory{Bytes: family(unix.AF_UNIX, []byte("/run/dock")...), OK: true, Cut: true}, "/run/dock..."},
		"abstract":                {Memory{Bytes: family(unix.AF_UNIX, []byte("\x00shim\x00\x01")...), OK: true}, `@shim\x00\x01`},
		"unnamed":                 {Memory{Bytes: family(unix.AF_UNIX), OK: true}, "AF_UNIX"},
		"another family":          {Memory{Bytes: family(unix.AF_NETLINK, 1, 2, 3, 4), OK: true}, "AF_NETLINK"},
		"too short for its kind":  {Memory{Bytes: family(unix.AF_INET, 0, 53), OK: true}, "AF_INET"},
		"too short for a family":  {Memory{Bytes: []byte{2}, OK: true}, "AF_UNSPEC"},
		"nothing":                 {Memory{OK: true}, "AF_UNSPEC"},
		"not in memory":           {Memory{}, "0x7f00"},
		"a family without a name": {Memory{Bytes: family(999), OK: true}, "0x3e7"},
	} {
		t.Run(name, func(t *testing.T) {
			d := decoders[syscalls.X86_64]
			assert.Equal(t, "sockfd=3, addr="+tt.want, strace(d.Decode(call(t, syscalls.X86_64, "connect"), &[6]uint64{3, 0x7f00}, tt.memory)))
		})
	}
}

func TestTextIsFitForATerminal(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "/plain path": "/plain path", `back\slash`: `back\\slash`, "line\nend": `line\nend`, "\x1b[2J": `\x1b[2J`,
		"caf\u00e9 \u65e5": "caf\u00e9 \u65e5", "\xff\x01": `\xff\x01`, "\u202egnp": `\u202egnp`, "it's": "it's", "\u00e9'": "\u00e9'",
	} {
		assert.Equal(t, want, printable([]byte(in)))
	}
}

func TestEveryCallOfTheTableExists(t *testing.T) {
	for name, parameters := range table {
		_, amd64 := syscalls.ParseCall(syscalls.X86_64, name)
		_, arm64 := syscalls.ParseCall(syscalls.ARM64, name)
		assert.False(t, amd64 != nil && arm64 != nil, "%s is in no table", name)
		assert.LessOrEqual(t, len(parameters), 6, name)
		captured := 0
		for _, p := range parameters {
			assert.Equal(t, p.name == "", p.kind == nil, name)
			if _, ok := p.kind.(memoryKind); ok {
				captured++
			}
		}
		assert.LessOrEqual(t, captured, 1, "%s: the kernel captures one parameter", name)
	}
}

func TestCapture(t *testing.T) {
	d := decoders[syscalls.ARM64]
	for name, want := range map[string]struct {
		parameter uint8
		bytes     bool
	}{"execve": {1, false}, "openat": {2, false}, "connect": {2, true}, "sendto": {5, true}, "read": {}, "getppid": {}} {
		parameter, bytes := d.Capture(call(t, syscalls.ARM64, name))
		assert.Equal(t, want.parameter, parameter, name)
		assert.Equal(t, want.bytes, bytes, name)
	}
}

func TestOnlyNativeCallsAreDecoded(t *testing.T) {
	d := decoders[syscalls.X86_64]
	for _, c := range []syscalls.Call{
		call(t, syscalls.I386, "execve"), {ABI: syscalls.X86_64, Number: -1}, {ABI: syscalls.X86_64, Number: 1 << 30}, {},
	} {
		assert.Nil(t, d.Decode(c, &[6]uint64{1}, Memory{}))
		parameter, _ := d.Capture(c)
		assert.Zero(t, parameter)
	}
	assert.Nil(t, New(syscalls.I386).Decode(call(t, syscalls.I386, "execve"), &[6]uint64{}, Memory{}), "constants are the native ABI's")
}

func FuzzDecode(f *testing.F) {
	f.Add(int32(59), uint64(0x7f00), uint64(1), uint64(2), []byte("/bin/sh"), true, false)
	f.Add(int32(42), uint64(3), uint64(0x7f00), uint64(16), []byte{2, 0, 0, 53, 127, 0, 0, 1}, true, false)
	f.Add(int32(257), uint64(minus(100)), uint64(1), ^uint64(0), []byte("\x1b\xff\\"), true, true)
	f.Add(int32(9), ^uint64(0), ^uint64(0), ^uint64(0), []byte(nil), false, false)
	f.Fuzz(func(t *testing.T, number int32, first, second, others uint64, memory []byte, ok, cut bool) {
		args := [6]uint64{first, second, others, others, others, others}
		for abi, d := range decoders {
			for _, a := range d.Decode(syscalls.Call{ABI: abi, Number: number}, &args, Memory{Bytes: memory, OK: ok, Cut: cut}) {
				assert.NotEmpty(t, a.Name)
				assert.True(t, utf8.ValidString(a.Value), "OTLP takes no other: %q", a.Value)
				assert.NotContains(t, a.Value, "\x1b")
				assert.NotContains(t, a.Value, "\n")
			}
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	for _, name := range []string{"openat", "read", "connect"} {
		b.Run(name, func(b *testing.B) {
			c := call(b, syscalls.X86_64, name)
			args := [6]uint64{minus(100), 0x7f00, unix.O_RDONLY | unix.O_CLOEXEC}
			m := Memory{Bytes: []byte("\x02\x00/usr/lib/x86_64-linux-gnu/libc.so.6"), OK: true}
			b.ReportAllocs()
			for b.Loop() {
				decoders[syscalls.X86_64].Decode(c, &args, m)
			}
		})
	}
}
