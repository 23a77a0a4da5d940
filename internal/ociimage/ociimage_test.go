package ociimage

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func example(t *testing.T) Image {
	t.Helper()
	program := filepath.Join(t.TempDir(), "program")
	require.NoError(t, os.WriteFile(program, []byte("ELF"), 0o600))
	return Image{
		Name:         "registry.example:5000/orb8/orb8:v1",
		Architecture: "arm64",
		Created:      time.Date(2026, 1, 2, 3, 4, 5, 6, time.Local),
		Config:       Config{Entrypoint: []string{"/usr/bin/program"}, Labels: map[string]string{"b": "2", "a": "1"}},
		Layers: []Layer{
			{CreatedBy: "base", Files: []File{
				{Path: "/tmp", Mode: fs.ModeDir | fs.ModeSticky | 0o777},
				{Path: "/lib", Link: "usr/lib"},
				{Path: "/etc/passwd", Mode: 0o644, Content: []byte("root:x:0:0::/:\n")},
			}},
			{CreatedBy: "program", Files: []File{{Path: "/usr/bin/program", Mode: 0o755, Source: program}}},
		},
	}
}

// untar returns the contents of a tar by name, and the headers in their order.
func untar(t *testing.T, r io.Reader) (map[string][]byte, []*tar.Header) {
	t.Helper()
	contents := map[string][]byte{}
	var headers []*tar.Header
	for in := tar.NewReader(r); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return contents, headers
		}
		require.NoError(t, err)
		require.NotContains(t, contents, h.Name)
		contents[h.Name], err = io.ReadAll(in)
		require.NoError(t, err)
		headers = append(headers, h)
	}
}

func write(t *testing.T, img Image) (string, []byte) {
	t.Helper()
	var out bytes.Buffer
	digest, err := Write(&out, img)
	require.NoError(t, err)
	return digest, out.Bytes()
}

// Follows the references as a runtime does, from index.json to the files of the layers, and checks every digest.
func TestWriteIsAnOCILayout(t *testing.T) {
	digest, image := write(t, example(t))
	files, headers := untar(t, bytes.NewReader(image))
	created := time.Date(2026, 1, 2, 3, 4, 5, 0, time.Local).UTC()
	for _, h := range headers {
		assert.True(t, h.ModTime.Equal(created), h.Name)
		if sum, isBlob := strings.CutPrefix(h.Name, "blobs/sha256/"); isBlob {
			assert.Equal(t, "sha256:"+sum, digestOf(files[h.Name]))
		}
	}
	assert.JSONEq(t, `{"imageLayoutVersion": "1.0.0"}`, string(files["oci-layout"]))

	read := func(d descriptor, mediaType string, v any) {
		assert.Equal(t, mediaType, d.MediaType)
		blob := files[blobPath(d)]
		require.Len(t, blob, d.Size)
		require.NoError(t, json.Unmarshal(blob, v))
	}
	var ix index
	require.NoError(t, json.Unmarshal(files["index.json"], &ix))
	require.Len(t, ix.Manifests, 1)
	d := ix.Manifests[0]
	assert.Equal(t, digest, d.Digest)
	assert.Equal(t, &platform{Architecture: "arm64", OS: "linux"}, d.Platform)
	assert.Equal(t, "registry.example:5000/orb8/orb8:v1", d.Annotations["io.containerd.image.name"])
	assert.Equal(t, "v1", d.Annotations["org.opencontainers.image.ref.name"])
	var m manifest
	read(d, typeManifest, &m)
	var c configFile
	read(m.Config, typeConfig, &c)
	assert.Equal(t, "arm64", c.Architecture)
	assert.Equal(t, created, c.Created)
	assert.Equal(t, []string{"/usr/bin/program"}, c.Config.Entrypoint)
	require.Len(t, m.Layers, 2)
	require.Len(t, c.RootFS.DiffIDs, 2)
	assert.Equal(t, []history{{created, "base"}, {created, "program"}}, c.History)

	var names []string
	for i, l := range m.Layers {
		assert.Equal(t, typeLayer, l.MediaType)
		zip, err := gzip.NewReader(bytes.NewReader(files[blobPath(l)]))
		require.NoError(t, err)
		unpacked, err := io.ReadAll(zip)
		require.NoError(t, err)
		assert.Equal(t, c.RootFS.DiffIDs[i], digestOf(unpacked))
		contents, headers := untar(t, bytes.NewReader(unpacked))
		for _, h := range headers {
			names = append(names, h.FileInfo().Mode().String()+" "+h.Name+h.Linkname)
			assert.Zero(t, h.Uid+h.Gid, h.Name)
			assert.True(t, h.ModTime.Equal(created), h.Name)
		}
		if i == 1 {
			assert.Equal(t, "ELF", string(contents["usr/bin/program"]))
		}
	}
	assert.Equal(t, []string{
		"drwxr-xr-x etc/", "-rw-r--r-- etc/passwd", "Lrwxrwxrwx libusr/lib", "dtrwxrwxrwx tmp/",
		"drwxr-xr-x usr/", "drwxr-xr-x usr/bin/", "-rwxr-xr-x usr/bin/program",
	}, names)
}

func TestWriteIsADockerArchive(t *testing.T) {
	_, image := write(t, example(t))
	files, _ := untar(t, bytes.NewReader(image))
	var docker []dockerManifest
	require.NoError(t, json.Unmarshal(files["manifest.json"], &docker))
	require.Len(t, docker, 1)
	assert.Equal(t, []string{"registry.example:5000/orb8/orb8:v1"}, docker[0].RepoTags)
	assert.Contains(t, files, docker[0].Config)
	require.Len(t, docker[0].Layers, 2)
	for _, l := range docker[0].Layers {
		assert.Contains(t, files, l)
	}
}

func TestSameImageSameBytes(t *testing.T) {
	img := example(t)
	digest, image := write(t, img)
	slices.Reverse(img.Layers[0].Files)
	require.NoError(t, os.Chtimes(img.Layers[1].Files[0].Source, time.Now(), time.Unix(1, 0)))
	again, sameImage := write(t, img)
	assert.Equal(t, digest, again)
	assert.True(t, bytes.Equal(image, sameImage))

	img.Layers[0].Files[0].Content = []byte("changed")
	other, _ := write(t, img)
	assert.NotEqual(t, digest, other)
}

func TestTwoLayersAlikeAreOneBlob(t *testing.T) {
	img := example(t)
	img.Layers[1] = img.Layers[0]
	_, image := write(t, img)
	files, _ := untar(t, bytes.NewReader(image)) // fails where a name is there twice
	var docker []dockerManifest
	require.NoError(t, json.Unmarshal(files["manifest.json"], &docker))
	assert.Equal(t, docker[0].Layers[0], docker[0].Layers[1])
}

func TestWriteRefuses(t *testing.T) {
	for _, tt := range []struct {
		name, says string
		change     func(*Image)
	}{
		{"no tag", `"orb8:5000/orb8": must be NAME:TAG`, func(i *Image) { i.Name = "orb8:5000/orb8" }},
		{"no architecture", "must not be empty", func(i *Image) { i.Architecture = "" }},
		{"relative path", `"etc": must be absolute`, func(i *Image) { i.Layers[0].Files[0].Path = "etc" }},
		{"path out of the image", `"/../etc": must be absolute and clean`, func(i *Image) { i.Layers[0].Files[0].Path = "/../etc" }},
		{"twice", `"/lib" is there twice`, func(i *Image) { i.Layers[0].Files[0].Path = "/lib" }},
		{"below a link", "/lib is no directory", func(i *Image) { i.Layers[0].Files[0].Path = "/lib/x" }},
		{"no source", "cannot add /usr/bin/program", func(i *Image) { i.Layers[1].Files[0].Source += "not" }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			img := example(t)
			tt.change(&img)
			_, err := Write(io.Discard, img)
			assert.ErrorContains(t, err, tt.says)
		})
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space left") }

func TestWriteSaysThatItCouldNot(t *testing.T) {
	_, err := Write(full{}, example(t))
	assert.ErrorContains(t, err, "cannot write image registry.example:5000/orb8/orb8:v1: no space left")
}
