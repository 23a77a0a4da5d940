package syscallanomalyprocessor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/extension/xextension/storage"
	"go.uber.org/zap"

	"github.com/orb8/orb8/internal/syscalls"
)

const (
	// formatVersion changes when older processors could not read what is stored, or this one what they wrote.
	formatVersion = 1
	// touchInterval is how often times and rates are saved where nothing else is new.
	touchInterval = time.Hour
)

// store keeps profiles in a storage extension. The zero value keeps none.
type store struct {
	logger *zap.Logger
	client storage.Client

	// mu is for one save at a time.
	mu sync.Mutex
	// saved is when a bucket was last written.
	saved [buckets]time.Time
	// failing tells that the last save failed, and that it was said.
	failing bool
}

// storedBucket is what is stored under one key.
type storedBucket struct {
	Version  int             `json:"version"`
	Profiles []storedProfile `json:"profiles"`
}

// storedProfile is a profile; times are in seconds since 1970.
type storedProfile struct {
	Key       string `json:"key"`
	First     int64  `json:"first"`
	Last      int64  `json:"last"`
	Learned   int64  `json:"learned,omitempty"`
	Intervals int64  `json:"intervals"`
	// Calls are by ABI/NAME.
	Calls map[string]storedCall `json:"calls,omitempty"`
	// Usual is by rule and ABI/NAME.
	Usual map[string]map[string]int64 `json:"usual,omitempty"`
}

type storedCall struct {
	First     int64   `json:"first"`
	Last      int64   `json:"last"`
	Intervals int64   `json:"n,omitempty"`
	Mean      float64 `json:"mean,omitempty"`
	Variance  float64 `json:"variance,omitempty"`
	Share     float64 `json:"share,omitempty"`
}

func bucketKey(bucket int) string { return fmt.Sprintf("profiles/%02x", bucket) }

// open fails if there is no such extension, or if it stores nothing.
func (s *store) open(ctx context.Context, host component.Host, extension, processor component.ID) error {
	found, ok := host.GetExtensions()[extension]
	if !ok {
		return fmt.Errorf("storage: there is no extension %q; define it, and name it in service.extensions", extension)
	}
	e, ok := found.(storage.Extension)
	if !ok {
		return fmt.Errorf("storage: extension %q is no storage; use one such as file_storage", extension)
	}
	var err error
	if s.client, err = e.GetClient(ctx, component.KindProcessor, processor, ""); err != nil {
		return fmt.Errorf("storage: %q: %w", extension, err)
	}
	return nil
}

func (s *store) close(ctx context.Context) error {
	if s.client == nil {
		return nil
	}
	return s.client.Close(ctx)
}

// load reads the profiles. What cannot be read is said and learned anew.
func (s *store) load(ctx context.Context, p *profiles) {
	var all []*profile
	for bucket := range buckets {
		text, err := s.client.Get(ctx, bucketKey(bucket))
		if err == nil && text != nil {
			var some []*profile
			some, err = decodeBucket(text, bucket)
			all = append(all, some...)
		}
		if err != nil {
			s.logger.Warn("Stored profiles of system calls cannot be read and are learned anew",
				zap.String("key", bucketKey(bucket)), zap.Error(err))
		}
	}
	// With a lower max_profiles than before, those that were seen last stay.
	slices.SortFunc(all, func(a, b *profile) int { return b.last.Compare(a.last) })
	for _, loaded := range all[:min(len(all), p.max)] {
		p.byKey[loaded.key] = loaded
	}
	for _, surplus := range all[min(len(all), p.max):] {
		p.removed[bucketOf(surplus.key)] = true
	}
}

// save writes what has changed, or all if it is the last time. What could not be written is tried again.
func (s *store) save(ctx context.Context, d *detector, last bool) {
	if s.client == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	operations, written, err := s.encode(d, last)
	if err == nil && len(operations) > 0 {
		err = s.client.Batch(ctx, operations...)
	}
	if err != nil {
		d.mu.Lock()
		for _, bucket := range written {
			d.profiles.removed[bucket] = true
		}
		d.mu.Unlock()
		if !s.failing {
			s.logger.Warn("Profiles of system calls cannot be stored; what is not stored until a restart is learned anew", zap.Error(err))
		}
	} else if s.failing {
		s.logger.Info("Profiles of system calls are stored again")
	}
	s.failing = err != nil
}

// encode returns the writes that are due, and the buckets that they are of.
func (s *store) encode(d *detector, last bool) (operations []*storage.Operation, written []int, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.now()
	var members [buckets][]*profile
	due := d.profiles.removed
	for _, p := range d.profiles.byKey {
		bucket := bucketOf(p.key)
		members[bucket] = append(members[bucket], p)
		due[bucket] = due[bucket] || p.changed || p.touched && (last || now.Sub(s.saved[bucket]) >= touchInterval)
	}
	for bucket, is := range due {
		if !is {
			continue
		}
		operation := storage.DeleteOperation(bucketKey(bucket))
		if len(members[bucket]) > 0 {
			text, err := encodeBucket(members[bucket])
			if err != nil {
				return nil, written, err
			}
			operation = storage.SetOperation(bucketKey(bucket), text)
		}
		for _, p := range members[bucket] {
			p.changed, p.touched = false, false
		}
		d.profiles.removed[bucket] = false
		s.saved[bucket] = now
		operations, written = append(operations, operation), append(written, bucket)
	}
	return operations, written, nil
}

func encodeBucket(members []*profile) ([]byte, error) {
	b := storedBucket{Version: formatVersion}
	for _, p := range members {
		stored := storedProfile{
			Key: p.key, First: p.first.Unix(), Last: p.last.Unix(), Intervals: p.intervals,
			Calls: make(map[string]storedCall, len(p.calls)),
		}
		if !p.learned.IsZero() {
			stored.Learned = p.learned.Unix()
		}
		for c, h := range p.calls {
			stored.Calls[c.ABI.String()+"/"+c.Name()] = storedCall{
				First: h.first.Unix(), Last: h.last.Unix(),
				Intervals: h.rate.intervals, Mean: h.rate.mean, Variance: h.rate.variance, Share: h.rate.share,
			}
		}
		for u, at := range p.usual {
			if stored.Usual == nil {
				stored.Usual = map[string]map[string]int64{}
			}
			if stored.Usual[u.rule] == nil {
				stored.Usual[u.rule] = map[string]int64{}
			}
			stored.Usual[u.rule][u.call.ABI.String()+"/"+u.call.Name()] = at.Unix()
		}
		b.Profiles = append(b.Profiles, stored)
	}
	return json.Marshal(b)
}

// decodeBucket fails on anything that encodeBucket does not write.
func decodeBucket(text []byte, bucket int) ([]*profile, error) {
	var b storedBucket
	if err := json.Unmarshal(text, &b); err != nil {
		return nil, err
	}
	if b.Version != formatVersion {
		return nil, fmt.Errorf("format %d is not this version's, which is %d", b.Version, formatVersion)
	}
	all := make([]*profile, 0, len(b.Profiles))
	for i := range b.Profiles {
		p, err := b.Profiles[i].profile()
		if err != nil {
			return nil, fmt.Errorf("profile %q: %w", display(b.Profiles[i].Key), err)
		}
		if bucketOf(p.key) != bucket {
			return nil, fmt.Errorf("profile %q: belongs to %s", p.workload, bucketKey(bucketOf(p.key)))
		}
		all = append(all, p)
	}
	return all, nil
}

func (s *storedProfile) profile() (*profile, error) {
	if s.Key == "" {
		return nil, errors.New("has no key")
	}
	if len(s.Calls) > maxCalls {
		return nil, fmt.Errorf("%d calls are too many", len(s.Calls))
	}
	p := newProfile(s.Key, time.Unix(s.First, 0))
	p.last, p.intervals, p.changed = time.Unix(s.Last, 0), s.Intervals, false
	if s.Learned != 0 {
		p.learned = time.Unix(s.Learned, 0)
	}
	for name, stored := range s.Calls {
		c, err := parseCall(name)
		if err != nil {
			return nil, err
		}
		if stored.Mean < 0 || stored.Variance < 0 || stored.Share < 0 || stored.Intervals < 0 {
			return nil, fmt.Errorf("%s: a rate of %g (variance %g, share %g, %d intervals) is none",
				name, stored.Mean, stored.Variance, stored.Share, stored.Intervals)
		}
		p.calls[c] = &history{
			first: time.Unix(stored.First, 0), last: time.Unix(stored.Last, 0),
			rate: baseline{intervals: stored.Intervals, mean: stored.Mean, variance: stored.Variance, share: stored.Share},
		}
	}
	for rule, calls := range s.Usual {
		for name, at := range calls {
			c, err := parseCall(name)
			if err != nil {
				return nil, err
			}
			p.usual[usage{rule, c}] = time.Unix(at, 0)
		}
	}
	return p, nil
}

func parseCall(qualified string) (syscalls.Call, error) {
	abi, name, _ := strings.Cut(qualified, "/")
	a, err := syscalls.ParseABI(abi)
	if err != nil {
		return syscalls.Call{}, err
	}
	return syscalls.ParseCall(a, name)
}
