package residency

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const smaps = `00400000-00401000 r--p 00000000 08:01 42                         /usr/bin/a program
Size:                  4 kB
Anonymous:             0 kB
VmFlags: rd mr mw me
00401000-00403000 r-xp 00001000 08:01 42                         /usr/bin/a program
Rss:                   8 kB
Anonymous:             0 kB
00403000-00404000 r-xp 00003000 08:01 42                         /usr/bin/a program
Rss:                   4 kB
Anonymous:             4 kB
00404000-00405000 rw-p 00004000 08:01 42                         /usr/bin/a program
Anonymous:             0 kB
00405000-00406000 r--s 00005000 08:01 42                         /usr/bin/a program
Anonymous:             0 kB
00406000-00407000 r--p 00000000 08:01 43                         /usr/bin/another program
Anonymous:             0 kB
c000000000-c000400000 r--p 00000000 00:00 0 
Anonymous:             0 kB
7ffc00000000-7ffc00021000 r-xp 00000000 00:00 0                          [vdso]
Anonymous:             0 kB
`

func TestUnchanged(t *testing.T) {
	got, err := unchanged(strings.NewReader(smaps), "/usr/bin/a program")
	require.NoError(t, err)
	assert.Equal(t, []mapping{{0x400000, 0x401000}, {0x401000, 0x403000}}, got,
		"not what holds a breakpoint, may be written to, is shared, or belongs to others")
	_, err = unchanged(iotest.ErrReader(errors.New("gone")), "/usr/bin/a program")
	assert.EqualError(t, err, "cannot read what this process has mapped: gone")
}

func TestDropFilePages(t *testing.T) {
	exe, err := os.Readlink("/proc/self/exe")
	require.NoError(t, err)
	f, err := os.Open("/proc/self/smaps")
	require.NoError(t, err)
	defer f.Close()
	mappings, err := unchanged(f, exe)
	require.NoError(t, err)
	require.NotEmpty(t, mappings)
	touch(t, mappings)

	before := filePages(t)
	require.NoError(t, DropFilePages())
	after := filePages(t)
	assert.Less(t, after, before*3/4, "kB of files in memory: what runs now is there again")
	touch(t, mappings)
	assert.Greater(t, filePages(t), before*3/4, "all is there again when it is wanted")
}

// touch reads all that the mappings hold.
func touch(t *testing.T, mappings []mapping) {
	t.Helper()
	memory, err := os.Open("/proc/self/mem")
	require.NoError(t, err)
	defer memory.Close()
	for _, m := range mappings {
		_, err := memory.ReadAt(make([]byte, m.end-m.start), int64(m.start))
		require.NoError(t, err)
	}
}

// filePages is what this process has in memory of files, in kB.
func filePages(t *testing.T) (kib int) {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	require.NoError(t, err)
	_, text, found := strings.Cut(string(status), "RssFile:")
	require.True(t, found)
	_, err = fmt.Sscanf(text, "%d kB", &kib)
	require.NoError(t, err)
	return kib
}
