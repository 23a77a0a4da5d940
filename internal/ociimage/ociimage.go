// Package ociimage writes container images as files, without a daemon, a registry or a base image.
//
// What it writes is a tar that is at once an OCI image layout, for `ctr images import`, and a Docker archive, for
// `docker load`. The same image is always the same bytes.
package ociimage

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// Image is a container image of Linux for one architecture.
type Image struct {
	// Name is what the image is imported as, tag included: ghcr.io/orb8/orb8:v0.1.0.
	Name string
	// Architecture is as GOARCH has it.
	Architecture string
	// Created is also the time of every file. The zero value is the Unix epoch.
	Created time.Time
	// Config says how a container of it is started.
	Config Config
	// Layers are unpacked in this order.
	Layers []Layer
}

// Config is the execution part of an image's configuration, in the names of the OCI image specification.
type Config struct {
	User         string              `json:"User,omitempty"`
	ExposedPorts map[string]struct{} `json:"ExposedPorts,omitempty"`
	Env          []string            `json:"Env,omitempty"`
	Entrypoint   []string            `json:"Entrypoint,omitempty"`
	Cmd          []string            `json:"Cmd,omitempty"`
	WorkingDir   string              `json:"WorkingDir,omitempty"`
	Labels       map[string]string   `json:"Labels,omitempty"`
}

// The media types of the OCI image specification.
const (
	typeIndex    = "application/vnd.oci.image.index.v1+json"
	typeManifest = "application/vnd.oci.image.manifest.v1+json"
	typeConfig   = "application/vnd.oci.image.config.v1+json"
	typeLayer    = "application/vnd.oci.image.layer.v1.tar+gzip"
)

// descriptor points to a blob.
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Platform    *platform         `json:"platform,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
}

type manifest struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Config        descriptor   `json:"config"`
	Layers        []descriptor `json:"layers"`
}

type index struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Manifests     []descriptor `json:"manifests"`
}

type configFile struct {
	platform
	Created time.Time `json:"created"`
	Config  Config    `json:"config"`
	RootFS  rootFS    `json:"rootfs"`
	History []history `json:"history"`
}

type rootFS struct {
	Type    string   `json:"type"`
	DiffIDs []string `json:"diff_ids"`
}

type history struct {
	Created   time.Time `json:"created"`
	CreatedBy string    `json:"created_by"`
}

// dockerManifest is an entry of manifest.json, which is what versions of Docker before 25 read.
type dockerManifest struct {
	Config   string   `json:"Config"`
	RepoTags []string `json:"RepoTags"`
	Layers   []string `json:"Layers"`
}

// Write writes the image and returns the digest of its manifest. The compressed layers are held in memory meanwhile.
func Write(w io.Writer, img Image) (digest string, err error) {
	name, tag, ok := strings.Cut(img.Name[strings.LastIndex(img.Name, "/")+1:], ":")
	if !ok || name == "" || tag == "" {
		return "", fmt.Errorf("image name %q: must be NAME:TAG", img.Name)
	}
	if img.Architecture == "" {
		return "", errors.New("image architecture: must not be empty; use a GOARCH")
	}
	if img.Created.IsZero() {
		img.Created = time.Unix(0, 0)
	}
	img.Created = img.Created.UTC().Truncate(time.Second)

	a := &archive{tar: tar.NewWriter(w), created: img.Created, written: map[string]bool{}}
	onLinux := platform{Architecture: img.Architecture, OS: "linux"}
	config := configFile{platform: onLinux, Created: img.Created, Config: img.Config, RootFS: rootFS{Type: "layers"}}
	m := manifest{SchemaVersion: 2, MediaType: typeManifest}
	docker := dockerManifest{RepoTags: []string{img.Name}}
	for _, l := range img.Layers {
		blob, diffID, err := l.pack(img.Created)
		if err != nil {
			return "", fmt.Errorf("cannot make layer %q: %w", l.CreatedBy, err)
		}
		d := a.blob(typeLayer, blob)
		m.Layers = append(m.Layers, d)
		docker.Layers = append(docker.Layers, blobPath(d))
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, diffID)
		config.History = append(config.History, history{Created: img.Created, CreatedBy: l.CreatedBy})
	}
	m.Config = a.json(typeConfig, config)
	docker.Config = blobPath(m.Config)
	d := a.json(typeManifest, m)
	d.Platform = &onLinux
	d.Annotations = map[string]string{"io.containerd.image.name": img.Name, "org.opencontainers.image.ref.name": tag}
	a.jsonFile("index.json", index{SchemaVersion: 2, MediaType: typeIndex, Manifests: []descriptor{d}})
	a.jsonFile("manifest.json", []dockerManifest{docker})
	a.jsonFile("oci-layout", map[string]string{"imageLayoutVersion": "1.0.0"})
	if a.err == nil {
		a.err = a.tar.Close()
	}
	if a.err != nil {
		return "", fmt.Errorf("cannot write image %s: %w", img.Name, a.err)
	}
	return d.Digest, nil
}

// archive is the tar around the blobs. It keeps its first error.
type archive struct {
	tar     *tar.Writer
	created time.Time
	written map[string]bool
	err     error
}

// blob writes a blob, once, and returns what points to it.
func (a *archive) blob(mediaType string, content []byte) descriptor {
	d := descriptor{MediaType: mediaType, Digest: digestOf(content), Size: len(content)}
	a.file(blobPath(d), content)
	return d
}

func (a *archive) json(mediaType string, v any) descriptor { return a.blob(mediaType, a.marshal(v)) }

func (a *archive) jsonFile(path string, v any) { a.file(path, a.marshal(v)) }

func (a *archive) marshal(v any) []byte {
	content, err := json.Marshal(v)
	a.err = errors.Join(a.err, err)
	return content
}

func (a *archive) file(path string, content []byte) {
	if a.err != nil || a.written[path] {
		return
	}
	a.written[path] = true
	a.err = a.tar.WriteHeader(&tar.Header{Name: path, Mode: 0o644, Size: int64(len(content)), ModTime: a.created})
	if a.err == nil {
		_, a.err = a.tar.Write(content)
	}
}

func blobPath(d descriptor) string { return "blobs/" + strings.Replace(d.Digest, ":", "/", 1) }

func digestOf(content []byte) string {
	sum := sha256.Sum256(content)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// pack returns the layer as a compressed tar, and the digest of the tar before compression.
func (l Layer) pack(created time.Time) (blob []byte, diffID string, err error) {
	var compressed bytes.Buffer
	hash := sha256.New()
	zip := gzip.NewWriter(&compressed) // its header has neither name nor time
	if err := l.write(io.MultiWriter(hash, zip), created); err != nil {
		return nil, "", err
	}
	if err := zip.Close(); err != nil {
		return nil, "", err
	}
	return compressed.Bytes(), "sha256:" + hex.EncodeToString(hash.Sum(nil)), nil
}
