package main

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/orb8/orb8/internal/ociimage"
	"github.com/orb8/orb8/internal/testutil"
)

// makePackage makes a Debian package of files, by their paths; a content "-> x" is a symbolic link to x.
func makePackage(t *testing.T, name string, files map[string]string) string {
	t.Helper()
	_, err := exec.LookPath("dpkg-deb")
	testutil.Require(t, "dpkg", err == nil, "dpkg-deb (Debian package dpkg) is not installed")
	dir := t.TempDir()
	files["DEBIAN/control"] = "Package: " + name + "\nVersion: 1-2\nArchitecture: all\nMaintainer: nobody <nobody@example.com>\nDescription: test\n"
	for path, content := range files {
		path = filepath.Join(dir, path)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		if to, link := strings.CutPrefix(content, "-> "); link {
			require.NoError(t, os.Symlink(to, path))
			continue
		}
		require.NoError(t, os.WriteFile(path, []byte(content), 0o755))
	}
	deb := filepath.Join(t.TempDir(), name+"_1-2_all.deb")
	_, err = output("", "dpkg-deb", "--root-owner-group", "--build", dir, deb)
	require.NoError(t, err)
	return deb
}

func testPackages(t *testing.T) []string {
	t.Helper()
	return []string{
		makePackage(t, "ca-certificates", map[string]string{
			"usr/share/ca-certificates/mozilla/B.crt":   "second",
			"usr/share/ca-certificates/mozilla/A.crt":   "first\n",
			"usr/share/doc/ca-certificates/copyright":   "free",
			"usr/share/doc/ca-certificates/README":      "long",
			"usr/sbin/update-ca-certificates":           "#!/bin/sh",
			"usr/share/ca-certificates/mozilla/C.other": "other",
		}),
		makePackage(t, "libc6", map[string]string{
			"lib/x86_64-linux-gnu/libc.so.6":              "libc",
			"lib/x86_64-linux-gnu/libpthread.so.0":        "threads",
			"lib/x86_64-linux-gnu/libnss_dns.so.2":        "dns",
			"lib/x86_64-linux-gnu/libnss_hesiod.so.2":     "hesiod",
			"lib/x86_64-linux-gnu/ld-linux-x86-64.so.2":   "loader",
			"lib64/ld-linux-x86-64.so.2":                  "-> /lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
			"usr/lib/x86_64-linux-gnu/gconv/ISO8859-1.so": "conversion",
		}),
	}
}

// testRoot is a repository with programs, the test's own among them.
func testRoot(t *testing.T) options {
	t.Helper()
	root := t.TempDir()
	self, err := os.Executable()
	require.NoError(t, err)
	program, err := os.ReadFile(self)
	require.NoError(t, err)
	for path, content := range map[string]string{
		"LICENSE": "free", "distribution/config/standalone.yaml": "extensions:", "bin/orb8": string(program), "bin/orb8-collector": string(program),
	} {
		path = filepath.Join(root, path)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(content), 0o644))
	}
	return options{
		name: "registry.example/orb8", arch: runtime.GOARCH, version: "1.2.3", revision: "abc",
		root: root, programs: filepath.Join(root, "bin"), output: filepath.Join(root, "orb8.tar"),
	}
}

func paths(l ociimage.Layer) []string {
	var all []string
	for _, f := range l.Files {
		all = append(all, f.Path)
	}
	slices.Sort(all)
	return all
}

func find(t *testing.T, l ociimage.Layer, path string) ociimage.File {
	t.Helper()
	i := slices.IndexFunc(l.Files, func(f ociimage.File) bool { return f.Path == path })
	require.NotEqual(t, -1, i, "no %s in %q", path, paths(l))
	return l.Files[i]
}

func TestAssemble(t *testing.T) {
	img, err := assemble(testRoot(t), testPackages(t))
	require.NoError(t, err)
	assert.Equal(t, "registry.example/orb8:v1.2.3", img.Name)
	assert.Equal(t, "1.2.3", img.Config.Labels["org.opencontainers.image.version"])
	assert.Equal(t, "abc", img.Config.Labels["org.opencontainers.image.revision"])
	require.Len(t, img.Layers, 2)
	base, own := img.Layers[0], img.Layers[1]
	assert.Equal(t, "Debian bookworm: ca-certificates_1-2_all libc6_1-2_all", base.CreatedBy)
	assert.Equal(t, []string{
		"/etc/group", "/etc/nsswitch.conf", "/etc/passwd", "/etc/ssl/certs/ca-certificates.crt",
		"/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", "/lib/x86_64-linux-gnu/libc.so.6", "/lib/x86_64-linux-gnu/libnss_dns.so.2",
		"/lib/x86_64-linux-gnu/libpthread.so.0", "/lib64/ld-linux-x86-64.so.2",
		"/tmp", "/usr/share/doc/ca-certificates/copyright",
		"/var/lib/dpkg/status.d/ca-certificates", "/var/lib/dpkg/status.d/libc6", "/var/lib/orb8",
	}, paths(base))
	assert.Equal(t, "first\nsecond\n", string(find(t, base, "/etc/ssl/certs/ca-certificates.crt").Content))
	assert.Equal(t, "/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", find(t, base, "/lib64/ld-linux-x86-64.so.2").Link)
	assert.Equal(t, fs.FileMode(0o755), find(t, base, "/lib/x86_64-linux-gnu/libc.so.6").Mode)
	assert.Contains(t, string(find(t, base, "/var/lib/dpkg/status.d/libc6").Content), "Version: 1-2")
	assert.Equal(t, []string{
		"/etc/orb8/standalone.yaml", "/usr/bin/orb8", "/usr/bin/orb8-collector", "/usr/share/doc/orb8/LICENSE",
	}, paths(own))
}

func TestImagesOfTheSameAreTheSame(t *testing.T) {
	o, packages := testRoot(t), testPackages(t)
	var images [][]byte
	for range 2 {
		img, err := assemble(o, packages)
		require.NoError(t, err)
		size, _, err := write(o.output, img)
		require.NoError(t, err)
		image, err := os.ReadFile(o.output)
		require.NoError(t, err)
		assert.Len(t, image, int(size))
		images = append(images, image)
	}
	assert.True(t, bytes.Equal(images[0], images[1]))
	left, err := filepath.Glob(filepath.Join(o.root, ".image-*"))
	require.NoError(t, err)
	assert.Empty(t, left)
}

func TestAssembleRefuses(t *testing.T) {
	packages := testPackages(t)
	for _, tt := range []struct {
		name, says string
		change     func(*options)
		packages   []string
	}{
		{"another machine's program", "run `make image`", func(o *options) { o.arch = other() }, packages},
		{"unknown architecture", `-arch "riscv64": must be amd64 or arm64`, func(o *options) { o.arch = "riscv64" }, packages},
		{"not built", "run `make image`", func(o *options) { o.programs = o.root }, packages},
		{"no configuration", "name the repository with -root", func(o *options) { o.root = filepath.Join(o.root, "bin") }, packages},
		{"no certificates", "no certificates", func(*options) {}, packages[1:]},
		{"no package", "dpkg-deb", func(*options) {}, []string{"nowhere.deb"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := testRoot(t)
			tt.change(&o)
			_, err := assemble(o, tt.packages)
			assert.ErrorContains(t, err, tt.says)
		})
	}
}

func other() string {
	if runtime.GOARCH == "amd64" {
		return "arm64"
	}
	return "amd64"
}

func TestBuildTime(t *testing.T) {
	created, err := buildTime("1700000000")
	require.NoError(t, err)
	assert.EqualValues(t, 1700000000, created.Unix())
	created, err = buildTime("")
	require.NoError(t, err)
	assert.Zero(t, created.Unix())
	_, err = buildTime("yesterday")
	assert.ErrorContains(t, err, "SOURCE_DATE_EPOCH")
}

func TestRunNeedsAVersion(t *testing.T) {
	assert.ErrorContains(t, run(options{output: "x"}, nil), "-version")
}
