package ociimage

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"
)

// Layer is a set of files. They all belong to root.
type Layer struct {
	// CreatedBy is shown in the image's history.
	CreatedBy string
	// Files in any order. Directories above them need not be named: they get mode 0755.
	Files []File
}

// File is a file, a directory or a symbolic link of a layer.
type File struct {
	// Path in the image, absolute.
	Path string
	// Mode is the permissions, and fs.ModeDir for a directory. A symbolic link needs none.
	Mode fs.FileMode
	// Content of the file.
	Content []byte
	// Source is a file of this machine whose content is taken instead of Content.
	Source string
	// Link is what a symbolic link points to.
	Link string
}

// write writes the layer as a tar, sorted by path so that a directory comes before what is in it.
func (l Layer) write(w io.Writer, created time.Time) error {
	files := map[string]File{}
	for _, f := range l.Files {
		if !path.IsAbs(f.Path) || path.Clean(f.Path) != f.Path || f.Path == "/" {
			return fmt.Errorf("path %q: must be absolute and clean, such as /usr/bin/orb8", f.Path)
		}
		if _, twice := files[f.Path]; twice {
			return fmt.Errorf("path %q is there twice", f.Path)
		}
		files[f.Path] = f
	}
	for _, f := range l.Files {
		for dir := path.Dir(f.Path); dir != "/"; dir = path.Dir(dir) {
			if above, ok := files[dir]; !ok {
				files[dir] = File{Path: dir, Mode: fs.ModeDir | 0o755}
			} else if !above.Mode.IsDir() {
				return fmt.Errorf("path %q: %s is no directory", f.Path, dir)
			}
		}
	}
	out := tar.NewWriter(w)
	for _, f := range sorted(files) {
		if err := f.write(out, created); err != nil {
			return fmt.Errorf("cannot add %s: %w", f.Path, err)
		}
	}
	return out.Close()
}

func sorted(files map[string]File) []File {
	all := make([]File, 0, len(files))
	for _, f := range files {
		all = append(all, f)
	}
	slices.SortFunc(all, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	return all
}

func (f File) write(out *tar.Writer, created time.Time) error {
	header := &tar.Header{Name: strings.TrimPrefix(f.Path, "/"), Mode: int64(f.Mode.Perm()), ModTime: created}
	if f.Mode&fs.ModeSticky != 0 {
		header.Mode |= 0o1000
	}
	var content io.Reader = bytes.NewReader(f.Content)
	switch {
	case f.Link != "":
		header.Typeflag, header.Linkname, header.Mode = tar.TypeSymlink, f.Link, 0o777
	case f.Mode.IsDir():
		header.Typeflag = tar.TypeDir
		header.Name += "/"
	case f.Source != "":
		source, err := os.Open(f.Source)
		if err != nil {
			return err
		}
		defer source.Close()
		info, err := source.Stat()
		if err != nil {
			return err
		}
		header.Size, content = info.Size(), source
	default:
		header.Size = int64(len(f.Content))
	}
	if err := out.WriteHeader(header); err != nil {
		return err
	}
	if header.Size == 0 {
		return nil
	}
	_, err := io.Copy(out, content)
	return err
}
