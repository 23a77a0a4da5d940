// Command image assembles the container image of orb8 from Debian packages and what `make build` built.
//
// It needs apt-get and dpkg-deb, but neither a daemon nor a base image nor root. `make image` runs it.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"github.com/orb8/orb8/internal/ociimage"
)

// options are the flags.
type options struct {
	name, arch, version, revision string
	root, programs, cache, output string
	mirror                        string
}

func main() {
	var o options
	flag.StringVar(&o.name, "name", "ghcr.io/orb8/orb8", "`NAME` of the image, without tag")
	flag.StringVar(&o.version, "version", "", "`VERSION` of orb8, also the tag")
	flag.StringVar(&o.revision, "revision", "", "git `COMMIT` that was built")
	flag.StringVar(&o.arch, "arch", runtime.GOARCH, "`GOARCH`: amd64 or arm64")
	flag.StringVar(&o.root, "root", ".", "root `FOLDER` of the repository")
	flag.StringVar(&o.programs, "programs", "bin", "`FOLDER` of orb8-collector and orb8, built for the architecture")
	flag.StringVar(&o.cache, "cache", "", "`FOLDER` that keeps downloaded packages (default orb8/debian in $ORB8_CACHE or the user's cache)")
	flag.StringVar(&o.mirror, "mirror", "http://deb.debian.org", "`URL` that has /debian and /debian-security")
	flag.StringVar(&o.output, "output", "", "`FILE` to write")
	flag.Parse()
	if err := run(o, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(1)
	}
}

func run(o options, stdout io.Writer) error {
	if o.version == "" || o.output == "" {
		return fmt.Errorf("-version %q, -output %q: both must be given", o.version, o.output)
	}
	created, err := buildTime(os.Getenv("SOURCE_DATE_EPOCH"))
	if err != nil {
		return err
	}
	if o.cache == "" {
		if o.cache, err = cacheDir(); err != nil {
			return err
		}
	}
	apt := aptIn(filepath.Join(o.cache, o.arch), o.arch, o.mirror)
	packages, err := apt.download(packageNames...)
	if err != nil {
		return err
	}
	img, err := assemble(o, packages)
	if err != nil {
		return err
	}
	img.Created = created
	size, digest, err := write(o.output, img)
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%s: %s for linux/%s, %.1f MB, %s\n", o.output, img.Name, o.arch, float64(size)/1e6, digest)
	return nil
}

// write writes the image by way of a file next to it, so that a failure leaves no half of one.
func write(path string, img ociimage.Image) (size int64, digest string, err error) {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".image-")
	if err != nil {
		return 0, "", fmt.Errorf("cannot write the image: %w", err)
	}
	defer os.Remove(tmp.Name()) // once renamed it is not there
	defer tmp.Close()
	if digest, err = ociimage.Write(tmp, img); err != nil {
		return 0, "", err
	}
	info, err := tmp.Stat()
	if err == nil {
		err = tmp.Chmod(0o644)
	}
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return 0, "", fmt.Errorf("cannot write %s: %w", path, err)
	}
	return info.Size(), digest, nil
}

// buildTime reads SOURCE_DATE_EPOCH, the time of reproducible builds; empty is the Unix epoch.
func buildTime(epoch string) (time.Time, error) {
	if epoch == "" {
		epoch = "0"
	}
	seconds, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH %q: must be seconds since 1970: %w", epoch, err)
	}
	return time.Unix(seconds, 0), nil
}

func cacheDir() (string, error) {
	dir := os.Getenv("ORB8_CACHE")
	if dir == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("cannot find a folder for packages: %w; name one with -cache", err)
		}
		dir = filepath.Join(user, "orb8")
	}
	return filepath.Join(dir, "debian"), nil
}
