package kernels

import (
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// initramfs writes a compressed cpio archive ("newc" format), of which the kernel makes its root file system.
type initramfs struct {
	zip  *gzip.Writer
	size int
	err  error
}

func newInitramfs(w io.Writer) *initramfs { return &initramfs{zip: gzip.NewWriter(w)} }

const (
	cpioDirectory = 0o040755
	cpioProgram   = 0o100755
)

// directory adds a directory. Those above it must have been added before.
func (i *initramfs) directory(name string) { i.add(name, cpioDirectory, nil) }

func (i *initramfs) file(name string, content []byte) { i.add(name, cpioProgram, content) }

func (i *initramfs) copy(name, from string) {
	content, err := os.ReadFile(from)
	if err != nil && i.err == nil {
		i.err = err
	}
	i.file(name, content)
}

// tree adds a directory with what there is of the named files and directories in another one.
func (i *initramfs) tree(name, from string, patterns ...string) {
	i.directory(name)
	for _, pattern := range patterns {
		paths, _ := filepath.Glob(filepath.Join(from, pattern))
		for _, path := range paths {
			to := filepath.Join(name, filepath.Base(path))
			if info, err := os.Stat(path); err == nil && info.IsDir() {
				i.tree(to, path, "*")
			} else {
				i.copy(to, path)
			}
		}
	}
}

func (i *initramfs) add(name string, mode int, content []byte) {
	// Fields: inode, mode, uid, gid, links, mtime, size, device and its node (major, minor each), name length, checksum.
	i.write(fmt.Appendf(nil, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		0, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name)+1, 0, name))
	i.pad()
	i.write(content)
	i.pad()
}

func (i *initramfs) pad() { i.write(make([]byte, -i.size&3)) }

func (i *initramfs) write(b []byte) {
	i.size += len(b)
	if i.err == nil {
		_, i.err = i.zip.Write(b)
	}
}

// close ends the archive and returns the first error of all that was added.
func (i *initramfs) close() error {
	i.add("TRAILER!!!", 0, nil)
	if i.err != nil {
		return i.err
	}
	return i.zip.Close()
}
