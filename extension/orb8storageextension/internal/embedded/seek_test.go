package embedded

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/storage"
)

const randomPods = 12

func randomPod(i int) flow.Identity {
	return flow.Identity{
		CgroupID: uint64(100 + i), Pod: fmt.Sprintf("pod-%d", i), Namespace: fmt.Sprintf("ns-%d", i%3), Container: fmt.Sprintf("c-%d", i%4),
		ContainerID: fmt.Sprintf("%064x", i+0xabcd0000), Workload: fmt.Sprintf("work-%d", i/2), Service: fmt.Sprintf("svc-%d", i/3),
	}
}

// randomFlows returns what nodes saw of connections between pods, in intervals, in the order in which they arrive: with ports that
// are used again, translated addresses, ends that nobody saw, connections without a handshake, names that are known late, packets
// that are on their way through a node, and UDP. Those that are plain have ports of their own, and the names of both ends.
func randomFlows(random *rand.Rand, connections int, plain bool) []flow.Record {
	var all []flow.Record
	address := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}) }
	for connection := range connections {
		client, server := random.IntN(randomPods), random.IntN(randomPods)
		start := at(random.IntN(600)).Add(time.Duration(random.Int64N(1e9)))
		clientPort := uint16(40000 + random.IntN(4))
		seenAt, translated := random.IntN(6), random.IntN(2) == 0
		udp, handshake := random.IntN(5) == 0, random.IntN(4) > 0
		if plain {
			clientPort = uint16(10000 + connection)
		}
		health := flow.TCPHealth{HasISNs: true, ClientISN: random.Uint32(), ServerISN: random.Uint32(), SRTT: time.Millisecond}
		for interval := range 1 + random.IntN(4) {
			for _, toServer := range []bool{true, false} {
				r := flow.Record{
					Transport: flow.TCP, Bytes: uint64(random.IntN(10000)), Packets: 10, LostPackets: uint64(random.IntN(2)),
					TCPFlags: byte(1 << random.IntN(6)), Connections: uint64(random.IntN(2)), Interfaces: []string{"eth0"},
				}
				from, to := netip.AddrPortFrom(address(client), clientPort), netip.AddrPortFrom(address(server), 443)
				if udp {
					r.Transport = flow.UDP
				} else if handshake && (interval > 0 || plain) || !plain && random.IntN(2) == 0 {
					r.TCPHealth = health
					r.Initiator = flow.InitiatorSource
					if !toServer {
						r.Initiator = flow.InitiatorDestination
					}
				}
				for end := range 3 {
					if end == 2 && seenAt < 5 || seenAt == end {
						continue
					}
					v := r
					v.Start = start.Add(time.Duration(interval)*50*time.Second + time.Duration(random.Int64N(1e9)))
					v.End = v.Start.Add(time.Duration(random.Int64N(20e9)))
					v.Source, v.Destination = flow.Endpoint{Addr: from}, flow.Endpoint{Addr: to}
					if end == 0 && translated && !udp {
						v.Destination.Addr = netip.AddrPortFrom(address(200+server), 80)
					}
					local, at := &v.Source, client
					v.Direction = flow.Egress
					if end == 1 {
						local, at, v.Direction = &v.Destination, server, flow.Ingress
					}
					if !toServer {
						v.Source, v.Destination = v.Destination, v.Source
						v.Direction = flow.Egress + flow.Ingress - v.Direction
						if local = &v.Destination; end == 1 {
							local = &v.Source
						}
					}
					v.Node = fmt.Sprintf("node-%d", at%4)
					if v.Retransmits = 0; v.Transport == flow.TCP && v.Direction == flow.Egress {
						v.Retransmits = uint64(random.IntN(3))
					}
					if plain {
						v.Source.Identity, v.Destination.Identity = randomPod(client), randomPod(server)
						if !toServer {
							v.Source.Identity, v.Destination.Identity = v.Destination.Identity, v.Source.Identity
						}
					}
					if end == 2 {
						v.Direction = flow.Transit
					} else if plain || random.IntN(4) > 0 {
						local.Identity = randomPod(at)
					} else {
						local.Identity.CgroupID = randomPod(at).CgroupID
					}
					all = append(all, v)
				}
			}
		}
	}
	slices.SortFunc(all, func(a, b flow.Record) int { return a.End.Compare(b.End) })
	return all
}

func randomSelection(random *rand.Rand) storage.Selection {
	who := randomPod(random.IntN(randomPods))
	filters := []storage.Filter{
		{Pods: []string{who.Pod}}, {Pods: []string{who.Namespace + "/" + who.Pod}}, {Namespaces: []string{who.Namespace}},
		{Containers: []string{who.ContainerID[:62]}}, {Workloads: []string{who.Workload}}, {Services: []string{who.Service}},
		{Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.0.4/31")}}, {Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.0.203/32")}},
		{Source: storage.EndFilter{Pods: []string{who.Pod}}}, {Destination: storage.EndFilter{Containers: []string{who.Container}}},
		{Pods: []string{who.Pod}, Namespaces: []string{"ns-1"}, Transports: []flow.Transport{flow.TCP}},
		{Source: storage.EndFilter{Namespaces: []string{"ns-0"}}, Destination: storage.EndFilter{Workloads: []string{who.Workload}}},
	}
	pick := func() storage.Filter { return filters[random.IntN(len(filters))] }
	s := storage.Selection{Allow: []storage.Filter{pick()}}
	if random.IntN(3) == 0 {
		s.Allow = append(s.Allow, pick())
	}
	if random.IntN(3) == 0 {
		s.Deny = append(s.Deny, pick())
	}
	return s
}

// newRandomStore returns a store with what it has in memory and in blocks, of which some were merged.
func newRandomStore(t testing.TB, random *rand.Rand, plain bool) *Store {
	s, clock := openTestStore(t, t.TempDir())
	clock.set(1000)
	records := randomFlows(random, 300, plain)
	for len(records) > 0 {
		n := min(len(records), 1+random.IntN(300))
		_, err := s.WriteFlows(t.Context(), records[:n])
		require.NoError(t, err)
		if records = records[n:]; len(records) > 0 && random.IntN(3) > 0 {
			seal(t, s)
		}
	}
	return s
}

// freeze leaves the blocks as they are until thaw is called: records that came out of order may make other flows once they are in
// other blocks.
func freeze(s *Store) (thaw func()) {
	s.disk.keeping.Lock()
	s.disk.merging.Lock()
	return func() {
		s.disk.merging.Unlock()
		s.disk.keeping.Unlock()
	}
}

// What is found by an index is what is found by reading everything.
func TestWhatIsSoughtIsAllThereIs(t *testing.T) {
	for seed := range uint64(6) {
		random := rand.New(rand.NewPCG(seed, 1))
		s := newRandomStore(t, random, false)
		require.Greater(t, len(s.flows.blocks), 1)
		var found int
		for range 40 {
			q := storage.FlowQuery{Selection: randomSelection(random), SeparateEnds: random.IntN(2) == 0}
			if random.IntN(2) == 0 {
				q.Since = at(random.IntN(600))
				q.Until = q.Since.Add(time.Duration(1+random.IntN(200)) * time.Second)
			}
			thaw := freeze(s)
			all, _, err := s.sumFlows(t.Context(), &storage.Selection{}, q.Since, q.Until, 0)
			require.NoError(t, err)
			want, _, matched, err := all.answer(&q)
			require.NoError(t, err)
			got := query(t, s, q)
			thaw()
			require.Equal(t, want, got.Flows, "seed %d, %+v", seed, q)
			require.Equal(t, matched, got.Matched)
			found += matched
		}
		assert.Greater(t, found, 1000)
	}
}

// Rows that are taken with the seeds are those that are taken for them later, where there is no room to keep any.
func TestRowsThatAreNotKeptAreTakenLater(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 1))
	s := newRandomStore(t, random, false)
	thaw := freeze(s)
	defer thaw()
	for range 20 {
		selection := randomSelection(random)
		places := func(kept int64) (all [][]uint32) {
			search := seek{since: at(100).UnixNano(), until: at(500).UnixNano(), clues: selection.Clues()}
			search.kept.Store(kept)
			var sources []source
			for _, f := range s.flows.blocks {
				sources = append(sources, &blockSource{index: indexOf(f)})
			}
			_, err := search.run(t.Context(), sources, 1<<40)
			require.NoError(t, err)
			for _, source := range sources {
				b := source.(*blockSource)
				assert.Equal(t, kept == 0, b.pages != nil)
				slices.Sort(b.places)
				all = append(all, slices.Clip(b.places))
			}
			return all
		}
		require.EqualValues(t, fmt.Sprint(places(1<<41)), fmt.Sprint(places(0)), "%+v", selection)
	}
}

// A page of the newest is the beginning of all.
func TestTheNewestAreTheFirstOfAll(t *testing.T) {
	random := rand.New(rand.NewPCG(4, 1))
	s := newRandomStore(t, random, false)
	thaw := freeze(s)
	defer thaw()
	all := query(t, s, storage.FlowQuery{})
	for _, limit := range []int{1, 2, 7, 100, len(all.Flows) / 2, len(all.Flows)} {
		got := query(t, s, storage.FlowQuery{Limit: limit})
		require.Equal(t, all.Flows[:limit], got.Flows)
		require.Equal(t, all.Matched, got.Matched)
	}
}

// A merge waits for queries, and goes on nevertheless when there is always one.
func TestAMergeGoesOnBesideQueries(t *testing.T) {
	s, _ := openTestStore(t, t.TempDir())
	for i := range fanIn {
		_, err := s.WriteFlows(t.Context(), many(2*batchRows, i))
		require.NoError(t, err)
		seal(t, s)
	}
	for range maxQueries {
		done, err := s.turn(t.Context())
		require.NoError(t, err)
		defer done()
	}
	upkeep(t, s)
	assert.Len(t, s.flows.blocks, 1)
}

// A number is read as encoding/binary does, wherever it is and whatever follows.
func TestNumbersOfAPage(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	for range 20_000 {
		bytes := binary.AppendUvarint(nil, random.Uint64()>>random.IntN(64))
		n, width := binary.Uvarint(bytes)
		for range random.IntN(10) {
			bytes = append(bytes, byte(random.Uint32()))
		}
		r := pageReader{buf: bytes}
		require.Equal(t, n, r.number())
		require.Equal(t, width, r.at)
		r = pageReader{buf: bytes[:width-1]}
		require.Zero(t, r.number())
		require.True(t, r.short)
	}
	r := pageReader{buf: slices.Repeat([]byte{0xff}, 20)}
	require.Zero(t, r.number())
	require.True(t, r.short, "more than 64 bits")
}

// A pod's flows are all there, however many records of others there are.
func TestAnIndexedQueryIsBoundedByWhatItReads(t *testing.T) {
	s, clock := openTestStore(t, t.TempDir(), func(s *Settings) { s.MaxQueryRecords = 250 })
	for i := range 3 {
		clock.set(10*i + 5)
		records := many(1000, 10*i+5)
		for j := range 10 {
			records[j].Source.Identity.Pod = "rare"
		}
		for j := range 100 {
			records[j].Source.Identity.Namespace = "often"
		}
		s.WriteFlows(t.Context(), records)
		seal(t, s)
	}
	rare := query(t, s, storage.FlowQuery{Selection: storage.Selection{Allow: []storage.Filter{{Pods: []string{"rare"}}}}})
	assert.EqualValues(t, 30, sumOf(rare))
	assert.Equal(t, at(0), rare.Oldest)
	often := query(t, s, storage.FlowQuery{Selection: storage.Selection{Allow: []storage.Filter{{Namespaces: []string{"often"}}}}})
	assert.EqualValues(t, 100, sumOf(often), "what the other ends saw counts, though there is none")
	assert.Equal(t, at(15), often.Oldest, "what was seen until then is left out")
}

// An index that is not there, or not as it was, is made again; meanwhile the answer is the same.
func TestAnIndexIsMadeAgain(t *testing.T) {
	for name, damage := range map[string]func(path string) error{
		"gone":  os.Remove,
		"short": func(path string) error { return os.Truncate(path, 100) },
		"of another version": func(path string) error {
			return change(path, func(b []byte) { b[7]++ })
		},
		"with a page that is not as it was": func(path string) error {
			return change(path, func(b []byte) { b[100]++ })
		},
		"with names that are not as they were": func(path string) error {
			return change(path, func(b []byte) {
				footer := b[len(b)-int(footerBytes):]
				b[binary.LittleEndian.Uint64(footer[8*sectionPageEnds:])+10]++
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s, _ := openTestStore(t, dir)
			records := many(500, 7)
			for i := range records {
				records[i].Source.Identity.Pod = fmt.Sprintf("pod-%d", i%10)
			}
			_, err := s.WriteFlows(t.Context(), records)
			require.NoError(t, err)
			seal(t, s)
			q := storage.FlowQuery{Selection: storage.Selection{Allow: []storage.Filter{{Pods: []string{"pod-3"}}}}}
			want := query(t, s, q)
			require.NotEmpty(t, want.Flows)
			sum := storage.AggregateQuery{By: []string{"source.pod"}, Measures: []string{"bytes"}}
			wantSum, err := s.Aggregate(t.Context(), sum)
			require.NoError(t, err)
			require.Len(t, wantSum.Groups, 10)
			require.NoError(t, s.Close())

			paths, err := filepath.Glob(filepath.Join(dir, "blocks", "flows-*.parquet.index"))
			require.NoError(t, err)
			require.Len(t, paths, 1)
			require.NoError(t, damage(paths[0]))
			s, _ = openTestStore(t, dir)
			gotSum, err := s.Aggregate(t.Context(), sum)
			require.NoError(t, err)
			assert.Equal(t, wantSum.Groups, gotSum.Groups)
			assert.Equal(t, want.Flows, query(t, s, q).Flows)
			upkeep(t, s)
			require.NotNil(t, indexOf(s.flows.blocks[0]))
			assert.Equal(t, want, query(t, s, q))
		})
	}
}

func change(path string, how func([]byte)) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	how(b)
	return os.WriteFile(path, b, 0o600)
}

func TestAnIndexGoesWithItsBlock(t *testing.T) {
	dir := t.TempDir()
	s, _ := openTestStore(t, dir)
	s.WriteFlows(t.Context(), many(10, 1))
	seal(t, s)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "blocks", "flows-00000007-00000007.parquet.index"), []byte(indexMagic), 0o600))
	require.NoError(t, s.Close())
	s, clock := openTestStore(t, dir)
	assert.Len(t, filesOf(t, dir), 2, "one without a block is removed")
	clock.set(hour + 100)
	upkeep(t, s)
	assert.Empty(t, filesOf(t, dir))
}

// FuzzIndex changes bytes of an index: what can be read of it is what it was.
func FuzzIndex(f *testing.F) {
	path := filepath.Join(f.TempDir(), "index")
	c := newChunk()
	for _, r := range randomFlows(rand.New(rand.NewPCG(1, 1)), 50, false) {
		c.append(&r, 0)
	}
	require.NoError(f, indexViews(path, []view{c.view()}, runtime.Gosched))
	content, err := os.ReadFile(path)
	require.NoError(f, err)
	for at := range 20 {
		f.Add(uint32(len(content)*at/20), []byte{1, 2, 3})
	}
	f.Fuzz(func(t *testing.T, at uint32, bytes []byte) {
		changed := slices.Clone(content)
		copy(changed[int(at)%len(changed):], bytes)
		path := filepath.Join(t.TempDir(), "index")
		require.NoError(t, os.WriteFile(path, changed, 0o600))
		x, err := openIndex(path, uint64(len(c.rows)), &lexicon{})
		if err != nil {
			return
		}
		defer x.Close()
		b := blockSource{index: x}
		s := seek{since: -1 << 62, until: 1 << 62, clues: []storage.Clue{{Identity: func(*flow.Identity) bool { return true }}}}
		var damage *indexError
		_, rows, err := b.seeds(&s)
		if err == nil {
			assert.EqualValues(t, len(c.rows), rows)
		} else {
			require.ErrorAs(t, err, &damage)
		}
	})
}

// A field that an index did not keep would be gone from what queries answer.
func TestAnIndexKeepsAllOfAnIdentity(t *testing.T) {
	var who flow.Identity
	v := reflect.ValueOf(&who).Elem()
	for i := range v.NumField() {
		if f := v.Field(i); f.Kind() == reflect.String {
			f.SetString(v.Type().Field(i).Name)
		} else {
			f.SetUint(uint64(i + 1))
		}
	}
	w := newMerged()
	w.add(&words{identities: []flow.Identity{who}})
	got, err := decodeWords(encodeWords(&w.words), (&lexicon{}).share)
	require.NoError(t, err)
	assert.Equal(t, []flow.Identity{who}, got.identities)
}
