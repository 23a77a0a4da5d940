//go:build linux

package cluster

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
)

// packages are those that a node needs beside Kubernetes, and the libraries of iptables and conntrack.
var packages = []string{
	"etcd-server", "containerd", "runc", "containernetworking-plugins", "iptables", "conntrack",
	"libip4tc2", "libip6tc2", "libxtables12", "libmnl0", "libnetfilter-conntrack3", "libnfnetlink0", "libnftnl11", "libseccomp2",
}

const debianDir = "debian"

// debian unpacks the packages into a folder of the cache. They are not installed: that would start daemons and change
// a contributor's machine.
func (c cache) debian(ctx context.Context, progress io.Writer) error {
	return locked(string(c), func() error {
		root := filepath.Join(string(c), debianDir)
		if _, err := os.Stat(root); err == nil {
			return nil
		}
		fmt.Fprintln(progress, "downloading Debian packages of etcd, containerd, runc and CNI plugins")
		tmp, err := os.MkdirTemp(string(c), "download-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(tmp)
		apt := exec.CommandContext(ctx, "apt-get", append([]string{"download"}, packages...)...)
		apt.Dir = tmp
		if _, err := output(apt); err != nil {
			return fmt.Errorf("cannot download packages, which needs Debian 12 and `apt-get update`: %w", err)
		}
		files, err := filepath.Glob(filepath.Join(tmp, "*.deb"))
		if err != nil {
			return err
		}
		unpacked := filepath.Join(tmp, "root")
		for _, file := range files {
			if _, err := output(exec.CommandContext(ctx, "dpkg", "-x", file, unpacked)); err != nil {
				return fmt.Errorf("cannot unpack a package: %w", err)
			}
		}
		// What the packages' scripts would make of update-alternatives.
		for _, name := range []string{"iptables", "ip6tables"} {
			for _, suffix := range []string{"", "-save", "-restore"} {
				if err := os.Symlink("xtables-nft-multi", filepath.Join(unpacked, "usr/sbin", name+suffix)); err != nil {
					return err
				}
			}
		}
		return os.Rename(unpacked, root)
	})
}

// debianRoot returns the folder of the unpacked packages.
func (c cache) debianRoot() (string, error) {
	root := filepath.Join(string(c), debianDir)
	if _, err := os.Stat(root); err != nil {
		return "", fmt.Errorf("etcd and containerd are not there: run `make cluster-build` (%w)", err)
	}
	return root, nil
}

// debianEnv is the environment in which programs of the packages find each other and their libraries.
func debianEnv(root string) []string {
	libraries, _ := filepath.Glob(filepath.Join(root, "usr/lib/*-linux-gnu"))
	env := []string{"PATH=" + filepath.Join(root, "usr/sbin") + ":" + filepath.Join(root, "usr/bin") + ":" + os.Getenv("PATH")}
	for _, dir := range libraries {
		env = append(env, "LD_LIBRARY_PATH="+dir, "XTABLES_LIBDIR="+filepath.Join(dir, "xtables"))
	}
	return env
}
