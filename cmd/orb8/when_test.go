package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParseWhen(t *testing.T) {
	now := testNow()
	tests := []struct {
		in   string
		want time.Time
	}{
		{"0s", now},
		{"30s", now.Add(-30 * time.Second)},
		{"5m", now.Add(-5 * time.Minute)},
		{"1.5h", now.Add(-90 * time.Minute)},
		{"1h30m", now.Add(-90 * time.Minute)},
		{"250ms", now.Add(-250 * time.Millisecond)},
		{"1d", now.Add(-24 * time.Hour)},
		{"7d12h", now.Add(-180 * time.Hour)},
		{"106750d", now.Add(-106750 * day)},
		{"2026-01-31T15:04:05Z", time.Date(2026, 1, 31, 15, 4, 5, 0, time.UTC)},
		{"2026-01-31T15:04:05.123456789+02:00", time.Date(2026, 1, 31, 13, 4, 5, 123456789, time.UTC)},
		{"2099-12-31T23:59:59Z", time.Date(2099, 12, 31, 23, 59, 59, 0, time.UTC)},
	}
	for _, tt := range tests {
		t.Run(tt.in, func(t *testing.T) {
			got, err := parseWhen(tt.in, now)
			require.NoError(t, err)
			assert.Equal(t, tt.want, got.AsTime())
		})
	}
}

func TestParseWhenRefuses(t *testing.T) {
	for _, in := range []string{
		"", " ", "5", "5x", "-5m", "+5m", "1d-2h", "d", "1dd", "1.5d", "1d24h", "1d2d", "106751d", "99999999999999999999d", "2026-01-31", "15:04",
		"2026-01-31 15:04:05", "2026-13-01T00:00:00Z", "0000-01-01T00:00:00Z", "yesterday", "9999999h",
	} {
		t.Run(in, func(t *testing.T) {
			_, err := parseWhen(in, testNow())
			assert.ErrorIs(t, err, errWhen)
		})
	}
}

func FuzzParseWhen(f *testing.F) {
	for _, seed := range []string{"30s", "1d", "1d12h", "1h30m", "2026-01-31T15:04:05Z", "0000-01-01T00:00:00Z", "-1s", "9e9d", "1d-1h", "٣s"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		now := testNow()
		ts, err := parseWhen(s, now)
		if err != nil {
			assert.Nil(t, ts)
			assert.ErrorIs(t, err, errWhen)
			return
		}
		require.NoError(t, ts.CheckValid())
		if _, err := time.Parse(time.RFC3339Nano, s); err != nil {
			assert.False(t, ts.AsTime().After(now), "an age lies in the past")
		}
	})
}
