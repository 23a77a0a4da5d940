package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/orb8/orb8/internal/ociimage"
)

// suite is the Debian release that the base comes from, whatever the one that it is assembled on.
const suite = "bookworm"

// packageNames are what the base is taken from. base-files brings os-release, by which scanners know the others.
var packageNames = []string{"base-files", "ca-certificates", "libc6"}

// keep says which files of the packages get into the image: the C library and what it loads by itself, for programs
// that load a library of the host at run time, as NVIDIA's is; what scanners and lawyers look for; certificates.
var keep = regexp.MustCompile(`^/(` +
	`lib(64)?/([^/]+/)?(ld-linux-[^/]+|lib(c|dl|m|nss_dns|nss_files|pthread|resolv|rt)\.so\.[0-9]+)` +
	`|usr/lib/os-release|etc/os-release` +
	`|usr/share/doc/[^/]+/copyright` +
	`|` + certificates + `[^/]+\.crt` +
	`)$`)

// certificates is where ca-certificates has those of Mozilla's list, one a file.
const certificates = "usr/share/ca-certificates/mozilla/"

// apt is apt-get with a state of its own: it asks for packages of any architecture and touches nothing of the system.
type apt struct {
	dir     string
	options []string
	sources string
}

func aptIn(dir, arch, mirror string) *apt {
	in := func(name string) string { return filepath.Join(dir, name) }
	const signed = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"
	a := &apt{
		dir: dir,
		sources: fmt.Sprintf("deb %s %s/debian %s main\ndeb %s %s/debian-security %s-security main\n",
			signed, mirror, suite, signed, mirror, suite),
	}
	for _, option := range []string{
		"APT::Architecture=" + arch, "APT::Architectures::=" + arch,
		"APT::Sandbox::User=", // its user may not read the caller's cache
		"Acquire::Languages=none", "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
		"Dir::Cache=" + in("cache"),
		"Dir::Etc::SourceList=" + in("sources.list"), "Dir::Etc::SourceParts=/dev/null",
		"Dir::State=" + in("state"), "Dir::State::status=" + in("status"),
	} {
		a.options = append(a.options, "-o", option)
	}
	return a
}

// download returns the paths of the newest versions of the packages, which it downloads unless they are there. apt-get
// holds them against the checksums in the signed list.
func (a *apt) download(names ...string) ([]string, error) {
	for _, dir := range []string{"state/lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(a.dir, dir), 0o755); err != nil {
			return nil, fmt.Errorf("cannot keep packages: %w", err)
		}
	}
	for name, content := range map[string]string{"sources.list": a.sources, "status": ""} {
		if err := os.WriteFile(filepath.Join(a.dir, name), []byte(content), 0o644); err != nil {
			return nil, fmt.Errorf("cannot keep packages: %w", err)
		}
	}
	if _, err := a.get(".", "update", "--error-on=any", "-q"); err != nil {
		return nil, err
	}
	var paths []string
	for _, name := range names {
		// 'http://.../libc6_2.36-9_amd64.deb' libc6_2.36-9_amd64.deb 2759320 SHA256:...
		// Nothing where the file is there already, so this asks elsewhere.
		uri, err := a.get("state", "download", "--print-uris", name)
		if err != nil {
			return nil, err
		}
		fields := strings.Fields(string(uri))
		if len(fields) < 2 {
			return nil, fmt.Errorf("apt-get knows no file of package %s: %q", name, uri)
		}
		file := filepath.Join(a.dir, fields[1])
		if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
			if _, err := a.get(".", "download", "-q", name); err != nil {
				return nil, err
			}
		}
		paths = append(paths, file)
	}
	return paths, nil
}

// get runs apt-get in a folder of dir.
func (a *apt) get(in string, args ...string) ([]byte, error) {
	return output(filepath.Join(a.dir, in), "apt-get", slices.Concat(a.options, args)...)
}

// unpack returns the files of a package that the image keeps, and its control file.
func unpack(deb string) (files []ociimage.File, control []byte, err error) {
	if control, err = output("", "dpkg-deb", "--field", deb); err != nil {
		return nil, nil, err
	}
	content, err := output("", "dpkg-deb", "--fsys-tarfile", deb)
	if err != nil {
		return nil, nil, err
	}
	for in := tar.NewReader(bytes.NewReader(content)); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return files, control, nil
		}
		if err != nil {
			return nil, nil, fmt.Errorf("cannot read %s: %w", deb, err)
		}
		f := ociimage.File{Path: path.Join("/", h.Name), Mode: h.FileInfo().Mode().Perm()}
		if !keep.MatchString(f.Path) {
			continue
		}
		switch h.Typeflag {
		case tar.TypeReg:
			if f.Content, err = io.ReadAll(in); err != nil {
				return nil, nil, fmt.Errorf("cannot read %s of %s: %w", f.Path, deb, err)
			}
		case tar.TypeSymlink:
			f.Link = h.Linkname
		default:
			return nil, nil, fmt.Errorf("%s of %s is neither a file nor a symbolic link", f.Path, deb)
		}
		files = append(files, f)
	}
}

// output runs a program in dir and returns what it wrote.
func output(dir, name string, args ...string) ([]byte, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			return nil, fmt.Errorf("cannot assemble the image: %w; it takes a Debian or Ubuntu with debian-archive-keyring", err)
		}
		return nil, fmt.Errorf("%s failed: %w\n%s", name, err, stderr.Bytes())
	}
	return stdout.Bytes(), nil
}
