package syscallanomalyprocessor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/open-telemetry/opentelemetry-collector-contrib/extension/storage/filestorage"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/extension"
	"go.opentelemetry.io/collector/extension/extensiontest"
	"go.opentelemetry.io/collector/extension/xextension/storage"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/syscalls"
)

var storageID = component.MustNewID("file_storage")

// storageHost has extensions.
type storageHost map[component.ID]component.Component

func (h storageHost) GetExtensions() map[component.ID]component.Component { return h }

// fileStorage is the real extension, in a folder.
func fileStorage(t *testing.T, dir string) storageHost {
	t.Helper()
	factory := filestorage.NewFactory()
	cfg := factory.CreateDefaultConfig().(*filestorage.Config)
	cfg.Directory = dir
	e, err := factory.Create(t.Context(), extensiontest.NewNopSettings(factory.Type()), cfg)
	require.NoError(t, err)
	require.NoError(t, e.Start(t.Context(), componenttest.NewNopHost()))
	t.Cleanup(func() { require.NoError(t, e.Shutdown(context.Background())) })
	return storageHost{storageID: e}
}

func storedConfig() *Config {
	cfg := testConfig()
	cfg.Storage = &storageID
	return cfg
}

func (h *harness) start(host component.Host) {
	h.t.Helper()
	require.NoError(h.t, h.d.start(h.t.Context(), host))
}

// restart goes on with the time of another.
func restart(t *testing.T, old *harness, host component.Host) *harness {
	t.Helper()
	require.NoError(t, old.d.shutdown(t.Context()))
	h := newHarness(t, old.d.cfg)
	h.time = old.time.Add(time.Minute)
	h.start(host)
	return h
}

func TestProfilesSurviveARestart(t *testing.T) {
	host := fileStorage(t, t.TempDir())
	h := newHarness(t, storedConfig())
	h.start(host)
	h.event(cart("a"), "x mount source=a")
	usual := map[string]uint64{"read": 10, "i386/write": 1, "999": 1, "clone": 5, "mount": 1}
	h.time = h.time.Add(testInterval)
	h.learn(cart("a"), usual)
	h.counts(unit("nginx.service"), map[string]uint64{"read": 1})
	before := h.d.profiles.byKey

	h = restart(t, h, host)
	require.Len(t, h.d.profiles.byKey, len(before))
	for key, p := range before {
		loaded := h.d.profiles.byKey[key]
		require.NotNil(t, loaded)
		assert.Equal(t, p.first.Unix(), loaded.first.Unix())
		assert.Equal(t, p.learned.Unix() > 0, loaded.learned.Unix() > 0)
		assert.Equal(t, p.intervals, loaded.intervals)
		assert.Len(t, loaded.calls, len(p.calls))
		for c, kept := range p.calls {
			assert.Equal(t, kept.rate, loaded.calls[c].rate)
			assert.Equal(t, kept.first.Unix(), loaded.calls[c].first.Unix())
			assert.Equal(t, kept.last.Unix(), loaded.calls[c].last.Unix())
		}
	}
	assert.EqualValues(t, 2, h.metric("profiles"))
	assert.EqualValues(t, 1, h.metric("learning_profiles"))
	assert.Empty(t, h.counts(cart("b-new"), usual), "known before the restart")
	assert.Empty(t, h.event(cart("b-new"), "x mount source=a"), "usual before the restart")
	assert.Equal(t, []string{"never_seen_call"}, rulesOf(h.counts(cart("b-new"), map[string]uint64{"accept4": 1})))
	assert.Empty(t, h.counts(unit("nginx.service"), map[string]uint64{"write": 1}), "still learned")

	h = restart(t, h, host)
	assert.Empty(t, h.counts(cart("a"), map[string]uint64{"accept4": 1}), "what was told once is known")
	require.NoError(t, h.d.shutdown(t.Context()))
	assert.Zero(t, h.logs.FilterMessageSnippet("cannot").Len())
}

func TestProfilesThatAreGoneAreNotStored(t *testing.T) {
	host := fileStorage(t, t.TempDir())
	h := newHarness(t, storedConfig())
	h.start(host)
	h.counts(unit("a.service"), map[string]uint64{"read": 1})
	h = restart(t, h, host)
	require.Len(t, h.d.profiles.byKey, 1)
	h.time = h.time.Add(h.d.cfg.Expiry + time.Minute)
	h.d.sweep(t.Context())
	h = restart(t, h, host)
	assert.Empty(t, h.d.profiles.byKey)

	// A lower bound keeps those that were seen last.
	for i := range 20 {
		h.time = h.time.Add(time.Second)
		h.counts(unit(fmt.Sprintf("u%c.service", 'a'+i)), map[string]uint64{"read": 1})
	}
	h.d.cfg.MaxProfiles = 5
	h = restart(t, h, host)
	assert.Len(t, h.d.profiles.byKey, 5)
	assert.Contains(t, h.d.profiles.byKey, flow.AttrUnit+"=ut.service\x00")
	h = restart(t, h, host)
	assert.Len(t, h.d.profiles.byKey, 5)
	require.NoError(t, h.d.shutdown(t.Context()))
}

// TestBadProfilesAreLearnedAnew has a file in which others, or an older version, have written.
func TestBadProfilesAreLearnedAnew(t *testing.T) {
	key := flow.AttrUnit + "=a.service\x00"
	profileWith := func(change func(*storedProfile)) string {
		p := storedProfile{Key: key, First: 1, Last: 2, Calls: map[string]storedCall{"x86_64/read": {First: 1, Last: 2}}}
		change(&p)
		text, err := json.Marshal(storedBucket{Version: formatVersion, Profiles: []storedProfile{p}})
		require.NoError(t, err)
		return string(text)
	}
	many := map[string]storedCall{}
	for i := range maxCalls + 1 {
		many[fmt.Sprintf("x86_64/%d", 1000+i)] = storedCall{}
	}
	for name, text := range map[string]string{
		"nothing":      "",
		"garbage":      "\x00\xff garbage",
		"cut":          profileWith(func(*storedProfile) {})[:40],
		"old":          `{"version":0,"profiles":[]}`,
		"new":          `{"version":2,"profiles":{}}`,
		"no key":       profileWith(func(p *storedProfile) { p.Key = "" }),
		"bad call":     profileWith(func(p *storedProfile) { p.Calls["x86_64/frobnicate"] = storedCall{} }),
		"bad ABI":      profileWith(func(p *storedProfile) { p.Calls["vax/read"] = storedCall{} }),
		"bad usual":    profileWith(func(p *storedProfile) { p.Usual = map[string]map[string]int64{"mount": {"mount": 1}} }),
		"bad rate":     profileWith(func(p *storedProfile) { p.Calls["x86_64/read"] = storedCall{Variance: -1} }),
		"too many":     profileWith(func(p *storedProfile) { p.Calls = many }),
		"other bucket": profileWith(func(p *storedProfile) { p.Key = flow.AttrUnit + "=other.service\x00" }),
	} {
		t.Run(name, func(t *testing.T) {
			host := fileStorage(t, t.TempDir())
			client, err := host[storageID].(storage.Extension).GetClient(t.Context(), component.KindProcessor, newHarness(t, storedConfig()).d.set.ID, "")
			require.NoError(t, err)
			require.NoError(t, client.Set(t.Context(), bucketKey(bucketOf(key)), []byte(text)))
			require.NoError(t, client.Close(t.Context()))

			h := newHarness(t, storedConfig())
			h.start(host)
			assert.Empty(t, h.d.profiles.byKey)
			assert.Equal(t, 1, h.logs.FilterMessageSnippet("cannot be read and are learned anew").Len())
			h.counts(unit("a.service"), map[string]uint64{"read": 1})
			h = restart(t, h, host)
			assert.Len(t, h.d.profiles.byKey, 1)
			assert.Zero(t, h.logs.FilterMessageSnippet("cannot").Len())
			require.NoError(t, h.d.shutdown(t.Context()))
		})
	}
}

func FuzzDecodeBucket(f *testing.F) {
	p := newProfile(flow.AttrUnit+"=a.service\x00", time.Unix(7, 0))
	p.calls[syscalls.Call{ABI: syscalls.X86_64}] = &history{rate: baseline{3, 2, 1, 0.5}}
	p.usual[usage{"mount", syscalls.Call{ABI: syscalls.ARM, Number: 21}}] = time.Unix(8, 0)
	text, err := encodeBucket([]*profile{p})
	require.NoError(f, err)
	f.Add(text)
	f.Fuzz(func(t *testing.T, text []byte) {
		all, err := decodeBucket(text, bucketOf(p.key))
		if err != nil {
			return
		}
		again, err := encodeBucket(all)
		require.NoError(t, err)
		_, err = decodeBucket(again, bucketOf(p.key))
		require.NoError(t, err)
	})
}

func TestStorageThatIsNone(t *testing.T) {
	h := newHarness(t, storedConfig())
	assert.EqualError(t, h.d.start(t.Context(), componenttest.NewNopHost()),
		`storage: there is no extension "file_storage"; define it, and name it in service.extensions`)
	assert.EqualError(t, h.d.start(t.Context(), storageHost{storageID: nopComponent{}}),
		`storage: extension "file_storage" is no storage; use one such as file_storage`)
	assert.EqualError(t, h.d.start(t.Context(), storageHost{storageID: &memoryStorage{refuses: true}}), `storage: "file_storage": no disk`)
	require.NoError(t, h.d.shutdown(t.Context()))

	h = newHarness(t, testConfig())
	h.start(componenttest.NewNopHost())
	assert.Equal(t, 1, h.logs.FilterMessageSnippet("learned anew after a restart").Len())
	require.NoError(t, h.d.shutdown(t.Context()))
}

// TestSavesAreSmallAndRepeated looks at what is written, and at what happens when it cannot be.
func TestSavesAreSmallAndRepeated(t *testing.T) {
	m := &memoryStorage{values: map[string][]byte{}}
	h := newHarness(t, storedConfig())
	h.start(storageHost{storageID: m})
	h.counts(unit("a.service"), map[string]uint64{"read": 1})
	h.counts(unit("b.service"), map[string]uint64{"read": 1})
	m.failing = true
	h.d.sweep(t.Context())
	h.d.sweep(t.Context())
	assert.Equal(t, 1, h.logs.FilterMessageSnippet("cannot be stored").Len(), "said once")
	m.failing = false
	h.d.sweep(t.Context())
	assert.Equal(t, 2, m.writes)
	assert.Equal(t, 1, h.logs.FilterMessageSnippet("are stored again").Len())

	h.counts(unit("a.service"), map[string]uint64{"read": 1})
	h.d.sweep(t.Context())
	assert.Equal(t, 2, m.writes, "times alone can wait")
	h.counts(unit("a.service"), map[string]uint64{"write": 1})
	h.d.sweep(t.Context())
	assert.Equal(t, 3, m.writes, "a new call cannot")
	h.time = h.time.Add(touchInterval)
	h.counts(unit("a.service"), map[string]uint64{"read": 1})
	h.d.sweep(t.Context())
	assert.Equal(t, 4, m.writes)
	h.counts(unit("b.service"), map[string]uint64{"read": 1})
	require.NoError(t, h.d.shutdown(t.Context()))
	assert.Equal(t, 5, m.writes, "the last one writes all that is new")
	assert.True(t, m.closed)
}

// nopComponent is an extension that stores nothing.
type nopComponent struct {
	component.StartFunc
	component.ShutdownFunc
}

// memoryStorage is an extension and its client, and can be made to fail.
type memoryStorage struct {
	extension.Extension
	refuses, failing, closed bool
	writes                   int
	values                   map[string][]byte
}

func (m *memoryStorage) GetClient(context.Context, component.Kind, component.ID, string) (storage.Client, error) {
	if m.refuses {
		return nil, errors.New("no disk")
	}
	return m, nil
}

func (m *memoryStorage) Get(_ context.Context, key string) ([]byte, error) { return m.values[key], nil }

func (m *memoryStorage) Set(_ context.Context, key string, value []byte) error {
	m.writes++
	m.values[key] = value
	return nil
}

func (m *memoryStorage) Delete(_ context.Context, key string) error {
	delete(m.values, key)
	return nil
}

func (m *memoryStorage) Batch(ctx context.Context, ops ...*storage.Operation) error {
	if m.failing {
		return errors.New("disk full")
	}
	for _, op := range ops {
		var err error
		switch op.Type {
		case storage.Get:
			op.Value, err = m.Get(ctx, op.Key)
		case storage.Set:
			err = m.Set(ctx, op.Key, op.Value)
		case storage.Delete:
			err = m.Delete(ctx, op.Key)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (m *memoryStorage) Close(context.Context) error {
	m.closed = true
	return nil
}
