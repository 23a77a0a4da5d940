package main

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/orb8/orb8/internal/ociimage"
)

// user is whom the gateway runs as, who needs no capability. Agents are root: without a user's ambient capabilities, which
// Kubernetes does not have, nobody else gets any.
const (
	passwd = "root:x:0:0:root:/:/sbin/nologin\norb8:x:65532:65532:orb8:/var/lib/orb8:/sbin/nologin\n"
	group  = "root:x:0:\norb8:x:65532:\n"
	// nsswitch asks /etc/hosts before the name servers, as Go does by itself.
	nsswitch = "passwd: files\ngroup: files\nhosts: files dns\n"
)

var machines = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}

// assemble makes the image: a layer of Debian's files, which stays the same from version to version, and one of orb8's.
func assemble(o options, packages []string) (ociimage.Image, error) {
	base, err := baseLayer(packages)
	if err != nil {
		return ociimage.Image{}, err
	}
	own, err := ownLayer(o)
	if err != nil {
		return ociimage.Image{}, err
	}
	labels := map[string]string{
		"org.opencontainers.image.title":         "orb8",
		"org.opencontainers.image.description":   "Who talks to whom, which system calls run and what GPUs do, for every pod",
		"org.opencontainers.image.source":        "https://github.com/orb8/orb8",
		"org.opencontainers.image.documentation": "https://github.com/orb8/orb8/blob/main/docs/kubernetes.md",
		"org.opencontainers.image.licenses":      "Apache-2.0",
		"org.opencontainers.image.version":       o.version,
	}
	if o.revision != "" {
		labels["org.opencontainers.image.revision"] = o.revision
	}
	return ociimage.Image{
		Name:         o.name + ":v" + o.version,
		Architecture: o.arch,
		Config: ociimage.Config{
			Env:        []string{"PATH=/usr/bin", "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"},
			Entrypoint: []string{"/usr/bin/orb8-collector"},
			Cmd:        []string{"--config", "/etc/orb8/standalone.yaml"},
			WorkingDir: "/",
			Labels:     labels,
		},
		Layers: []ociimage.Layer{base, own},
	}, nil
}

func baseLayer(packages []string) (ociimage.Layer, error) {
	layer := ociimage.Layer{CreatedBy: "Debian " + suite + ":"}
	var roots bytes.Buffer
	for _, deb := range packages {
		files, control, err := unpack(deb)
		if err != nil {
			return layer, err
		}
		name := strings.TrimSuffix(filepath.Base(deb), ".deb")
		layer.CreatedBy += " " + name
		for _, f := range files {
			if strings.HasPrefix(f.Path, "/"+certificates) {
				roots.Write(append(bytes.TrimSpace(f.Content), '\n'))
				continue
			}
			layer.Files = append(layer.Files, f)
		}
		// Where scanners look for packages in an image without a package manager.
		name, _, _ = strings.Cut(name, "_")
		layer.Files = append(layer.Files, ociimage.File{Path: "/var/lib/dpkg/status.d/" + name, Mode: 0o644, Content: control})
	}
	if roots.Len() == 0 {
		return layer, errors.New("the packages have no certificates below " + certificates)
	}
	layer.Files = append(layer.Files,
		ociimage.File{Path: "/etc/ssl/certs/ca-certificates.crt", Mode: 0o644, Content: roots.Bytes()},
		ociimage.File{Path: "/etc/passwd", Mode: 0o644, Content: []byte(passwd)},
		ociimage.File{Path: "/etc/group", Mode: 0o644, Content: []byte(group)},
		ociimage.File{Path: "/etc/nsswitch.conf", Mode: 0o644, Content: []byte(nsswitch)},
		ociimage.File{Path: "/tmp", Mode: fs.ModeDir | fs.ModeSticky | 0o777},
		ociimage.File{Path: "/var/lib/orb8", Mode: fs.ModeDir | 0o755},
	)
	return layer, nil
}

func ownLayer(o options) (ociimage.Layer, error) {
	layer := ociimage.Layer{CreatedBy: "orb8 " + o.version, Files: []ociimage.File{
		{Path: "/usr/share/doc/orb8/LICENSE", Mode: 0o644, Source: filepath.Join(o.root, "LICENSE")},
	}}
	for _, name := range []string{"orb8-collector", "orb8"} {
		program := filepath.Join(o.programs, name)
		if err := checkProgram(program, o.arch); err != nil {
			return layer, err
		}
		layer.Files = append(layer.Files, ociimage.File{Path: "/usr/bin/" + name, Mode: 0o755, Source: program})
	}
	configs, err := filepath.Glob(filepath.Join(o.root, "distribution/config/*.yaml"))
	if err != nil || len(configs) == 0 {
		return layer, errors.Join(fmt.Errorf("%s has no distribution/config/*.yaml; name the repository with -root", o.root), err)
	}
	slices.Sort(configs)
	for _, config := range configs {
		layer.Files = append(layer.Files, ociimage.File{Path: "/etc/orb8/" + filepath.Base(config), Mode: 0o644, Source: config})
	}
	return layer, nil
}

// checkProgram refuses a program of another machine, which would start nowhere.
func checkProgram(path, arch string) error {
	want, ok := machines[arch]
	if !ok {
		return fmt.Errorf("-arch %q: must be amd64 or arm64", arch)
	}
	if _, err := os.Stat(path); err != nil {
		return fmt.Errorf("cannot add a program: %w; run `make image`, which builds it", err)
	}
	program, err := elf.Open(path)
	if err != nil {
		return fmt.Errorf("cannot read program %s: %w", path, err)
	}
	defer program.Close()
	if program.Machine != want {
		return fmt.Errorf("%s is for %s, not for %s; run `make image`, which builds it", path, program.Machine, arch)
	}
	return nil
}
