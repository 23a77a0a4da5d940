package storage

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Pages of any size are together what is there, where many rows have the same key too.
func TestPages(t *testing.T) {
	for _, rows := range []string{"", "a", "aaaa", "abbbbcc", "aaabbbccc"} {
		keyOf := func(i int) []byte { return []byte{rows[i]} }
		for limit := 1; limit < 6; limit++ {
			var got []byte
			for after, more := "", true; more; {
				from, to, next, err := Page(SignalFlows, len(rows), keyOf, after, limit)
				require.NoError(t, err)
				got = append(got, rows[from:to]...)
				require.LessOrEqual(t, len(got), len(rows))
				after, more = next, next != ""
			}
			assert.Equal(t, rows, string(got), "by %d", limit)
		}
	}
}

// A row that has gone, or come before, moves nothing.
func TestPagesOfAnotherStore(t *testing.T) {
	page := func(rows, after string) (string, string) {
		from, to, next, err := Page(SignalLookups, len(rows), func(i int) []byte { return []byte{rows[i]} }, after, 2)
		require.NoError(t, err)
		return rows[from:to], next
	}
	first, next := page("bdfh", "")
	assert.Equal(t, "bd", first)
	for _, rows := range []string{"bdfh", "bfh", "abcdfh", "fh"} {
		second, end := page(rows, next)
		assert.Equal(t, "fh", second, rows)
		assert.Empty(t, end)
	}
}

func TestCursorsOfNoPage(t *testing.T) {
	for name, after := range map[string]string{
		"no base64": "?", "short": "AAA", "another version": "CQABAA", "another signal": cursor(SignalAnomalies, []byte("a"), 1), "no count": "AQCA",
	} {
		_, _, _, err := Page(SignalFlows, 0, nil, after, 1)
		assert.ErrorIs(t, err, ErrCursor, name)
		assert.ErrorContains(t, err, after, name)
	}
}

func FuzzCursor(f *testing.F) {
	f.Add(cursor(SignalFlows, []byte("key"), 3))
	f.Add("")
	f.Fuzz(func(t *testing.T, after string) {
		rows := []string{"a", "a", "key", "key", "x"}
		from, to, _, err := Page(SignalFlows, len(rows), func(i int) []byte { return []byte(rows[i]) }, after, 2)
		if err == nil && !slices.IsSortedFunc(rows[from:to], func(a, b string) int { return bytes.Compare([]byte(a), []byte(b)) }) {
			t.Fatal(fmt.Sprint(from, to))
		}
	})
}
