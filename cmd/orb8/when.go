package main

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"
)

const day = 24 * time.Hour

var errWhen = errors.New("use a duration back from now, such as 30s, 5m, 2h or 1d, or an RFC 3339 time, such as 2026-01-31T15:04:05Z")

// parseWhen reads an instant: a duration back from now, or an RFC 3339 time.
func parseWhen(s string, now time.Time) (*timestamppb.Timestamp, error) {
	when, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		back, err := parseAge(s)
		if err != nil {
			return nil, errWhen
		}
		when = now.Add(-back)
	}
	// RFC 3339 has a year 0, the wire format has not.
	ts := timestamppb.New(when)
	if ts.CheckValid() != nil {
		return nil, errWhen
	}
	return ts, nil
}

// parseAge is time.ParseDuration with days ("1d", "1d12h") and without signs.
func parseAge(s string) (time.Duration, error) {
	if strings.ContainsAny(s, "+-") {
		return 0, errWhen
	}
	days, rest, found := strings.Cut(s, "d")
	if !found {
		return time.ParseDuration(s)
	}
	n, err := strconv.ParseUint(days, 10, 32)
	if err != nil || n >= uint64(math.MaxInt64/day) {
		return 0, errWhen
	}
	age := time.Duration(n) * day
	if rest == "" {
		return age, nil
	}
	d, err := time.ParseDuration(rest)
	if err != nil || d >= day {
		return 0, errWhen
	}
	return age + d, nil
}
