package kernels

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// envCache names the environment variable of the directory that keeps downloaded kernels; the default is orb8 in the
// user's cache directory.
const envCache = "ORB8_CACHE"

// metaPackage depends on Debian's current kernel for virtual machines: 6.1 on Debian 12.
const metaPackage = "linux-image-cloud-amd64"

// kernel is an unpacked Debian kernel package.
type kernel struct {
	image   string            // path of the bootable image
	modules map[string]string // paths of modules by their names
}

// kernels returns the kernels in the cache, and downloads one if there is none.
func kernels(t *testing.T) (all []*kernel) {
	t.Helper()
	dir := filepath.Join(cacheDir(t), "kernels")
	images := filepath.Join(dir, "*/boot/vmlinuz-*")
	found, err := filepath.Glob(images)
	require.NoError(t, err)
	if len(found) == 0 {
		download(t, dir)
		found, err = filepath.Glob(images)
		require.NoError(t, err)
		require.NotEmpty(t, found, "the package holds no kernel")
	}
	for _, image := range found {
		k := &kernel{image: image, modules: map[string]string{}}
		modules := filepath.Join(filepath.Dir(filepath.Dir(image)), "lib/modules")
		require.NoError(t, filepath.WalkDir(modules, func(path string, _ fs.DirEntry, err error) error {
			if name, ok := strings.CutSuffix(filepath.Base(path), ".ko"); ok {
				k.modules[moduleName(name)] = path
			}
			return err
		}))
		all = append(all, k)
	}
	return all
}

func cacheDir(t *testing.T) string {
	t.Helper()
	if dir := os.Getenv(envCache); dir != "" {
		return dir
	}
	dir, err := os.UserCacheDir()
	require.NoError(t, err, "set %s to a directory for downloaded kernels", envCache)
	return filepath.Join(dir, "orb8")
}

// download unpacks the package into dir/PACKAGE, by way of a directory of its own so that a broken download leaves nothing.
func download(t *testing.T, dir string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(dir, 0o755))
	tmp, err := os.MkdirTemp(dir, "download-")
	require.NoError(t, err)
	defer os.RemoveAll(tmp)

	depends := command(t, tmp, "apt-cache", "depends", metaPackage)
	match := regexp.MustCompile(`Depends: (linux-image-\S+)`).FindStringSubmatch(depends)
	require.NotNil(t, match, "%s depends on no kernel:\n%s", metaPackage, depends)
	command(t, tmp, "apt-get", "download", match[1])
	packages, err := filepath.Glob(filepath.Join(tmp, "*.deb"))
	require.NoError(t, err)
	require.Len(t, packages, 1)
	unpacked := filepath.Join(tmp, "unpacked")
	command(t, tmp, "dpkg", "-x", packages[0], unpacked)
	require.NoError(t, os.Rename(unpacked, filepath.Join(dir, match[1])))
}

func command(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	require.NoError(t, cmd.Run(), "%s %v\n%s", name, args, &stderr)
	return stdout.String()
}

// version returns the release, as uname -r says it.
func (k *kernel) version() string { return strings.TrimPrefix(filepath.Base(k.image), "vmlinuz-") }

// closure returns the paths of modules and of all that they depend on, in an order to load them in.
func (k *kernel) closure(names ...string) ([]string, error) {
	var paths []string
	done := map[string]bool{}
	var visit func(string) error
	visit = func(name string) error {
		name = moduleName(name)
		if done[name] {
			return nil
		}
		done[name] = true
		path, ok := k.modules[name]
		if !ok {
			return fmt.Errorf("%s has no module %s", k.version(), name)
		}
		depends, err := dependencies(path)
		if err != nil {
			return err
		}
		for _, d := range depends {
			if err := visit(d); err != nil {
				return err
			}
		}
		paths = append(paths, path)
		return nil
	}
	for _, name := range names {
		if err := visit(name); err != nil {
			return nil, err
		}
	}
	return paths, nil
}

// dependencies reads a module's own word: "depends=a,b" in its section .modinfo.
func dependencies(path string) ([]string, error) {
	f, err := elf.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	section := f.Section(".modinfo")
	if section == nil {
		return nil, fmt.Errorf("%s says nothing about itself", path)
	}
	info, err := section.Data()
	if err != nil {
		return nil, err
	}
	for _, field := range strings.Split(string(info), "\x00") {
		if list, ok := strings.CutPrefix(field, "depends="); ok && list != "" {
			return strings.Split(list, ","), nil
		}
	}
	return nil, nil
}

// moduleName is the name that dependencies use; files may have dashes.
func moduleName(file string) string { return strings.ReplaceAll(file, "-", "_") }
