package cgroup

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestCgroup2Mounts(t *testing.T) {
	for _, tt := range []struct {
		file string
		want []string
	}{
		{file: "unified", want: []string{"/sys/fs/cgroup"}},
		{file: "hybrid", want: []string{"/sys/fs/cgroup/unified"}},
		{file: "legacy"},
		{file: "container", want: []string{"/host/sys/fs/cgroup", "/sys/fs/cgroup"}},
		{file: "nested", want: []string{"/host/sys/fs/cgroup", "/sys/fs/cgroup"}},
		{file: "odd", want: []string{"/mnt/no/optional/fields", `/mnt/\9`, "/mnt/a b\tc\nd\\e"}},
	} {
		t.Run(tt.file, func(t *testing.T) {
			b, err := os.ReadFile(filepath.Join("testdata", "mountinfo", tt.file))
			require.NoError(t, err)
			assert.Equal(t, tt.want, cgroup2Mounts(string(b)))
		})
	}
}

func TestChoose(t *testing.T) {
	inspect := func(path string) (Mount, error) {
		switch path {
		case "/whole", "/whole2":
			return Mount{Path: path}, nil
		case "/part", "/part2":
			return Mount{Path: path, Partial: true}, nil
		}
		return Mount{}, errors.New(path + " is hidden")
	}
	for _, tt := range []struct {
		name  string
		paths []string
		want  Mount
		errs  []string
	}{
		{name: "one", paths: []string{"/whole"}, want: Mount{Path: "/whole"}},
		{name: "the first of several", paths: []string{"/whole", "/whole2"}, want: Mount{Path: "/whole"}},
		{name: "rather all than a part", paths: []string{"/part", "/whole"}, want: Mount{Path: "/whole"}},
		{name: "rather a part than nothing", paths: []string{"/hidden", "/part", "/part2"}, want: Mount{Path: "/part", Partial: true}},
		{name: "none", errs: []string{"no cgroup v2 hierarchy is mounted", "mount --mkdir -t cgroup2 none /run/cgroup2"}},
		{name: "none that can be read", paths: []string{"/hidden"}, errs: []string{"no cgroup v2 hierarchy is mounted", "/hidden is hidden"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := choose(tt.paths, inspect)
			assert.Equal(t, tt.want, got)
			if len(tt.errs) == 0 {
				assert.NoError(t, err)
			}
			for _, want := range tt.errs {
				assert.ErrorContains(t, err, want)
			}
		})
	}
}

func TestFindMount(t *testing.T) {
	dir := t.TempDir()
	_, err := FindMount(dir)
	assert.ErrorContains(t, err, dir+" is not in a cgroup v2 hierarchy; leave the path empty to have one found")
	_, err = FindMount(filepath.Join(dir, "missing"))
	assert.ErrorIs(t, err, os.ErrNotExist)

	below, err := FindMount(hierarchy(t))
	require.NoError(t, err)
	assert.True(t, below.Partial)
	found, err := FindMount("")
	require.NoError(t, err)
	assert.True(t, strings.HasPrefix(below.Path, found.Path))
	assert.Equal(t, inode(t, found.Path) != rootInode, found.Partial)
}

func FuzzCgroup2Mounts(f *testing.F) {
	for _, file := range []string{"unified", "hybrid", "legacy", "container", "nested", "odd"} {
		b, err := os.ReadFile(filepath.Join("testdata", "mountinfo", file))
		require.NoError(f, err)
		f.Add(string(b))
	}
	f.Add(`1 2 3:4 / \ - - cgroup2 `)
	f.Add(`1 2 3:4 / \40 x - cgroup2 `)
	f.Fuzz(func(t *testing.T, mountinfo string) {
		for _, path := range cgroup2Mounts(mountinfo) {
			assert.NotEmpty(t, path)
		}
	})
}
