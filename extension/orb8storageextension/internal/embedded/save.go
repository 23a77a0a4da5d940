package embedded

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"go.uber.org/zap"

	"github.com/orb8/orb8/extension/orb8storageextension/internal/block"
	"github.com/orb8/orb8/extension/orb8storageextension/internal/journal"
	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/gpu"
	"github.com/orb8/orb8/internal/storage"
	"github.com/orb8/orb8/internal/syscalls"
)

const savedVersion = 1

// saved is what neither blocks nor the journal hold: it was in segments of the journal that are gone.
type saved struct {
	Version int                     `json:"version"`
	Nodes   map[string]savedNode    `json:"nodes"`
	Kinds   map[string]savedHistory `json:"kinds"`
	// Batches are those that came last and are not in the journal any more.
	Batches []journal.ID `json:"batches"`
}

type savedNode struct {
	Network  flow.NetworkStatus `json:"network"`
	Syscalls syscalls.Status    `json:"syscalls"`
	GPU      gpu.Status         `json:"gpu"`
	Flows    savedReports       `json:"flows"`
	Calls    savedReports       `json:"calls"`
	Scrapes  savedReports       `json:"scrapes"`
}

type savedReports struct {
	Time     time.Time     `json:"time"`
	Started  time.Time     `json:"started"`
	Interval time.Duration `json:"interval"`
	Loss     storage.Loss  `json:"loss"`
	Seen     time.Time     `json:"seen"`
	Losses   []savedSpan   `json:"losses,omitempty"`
}

type savedHistory struct {
	Covered   int64       `json:"covered"`
	Evictions []savedSpan `json:"evictions,omitempty"`
}

type savedSpan struct {
	From int64        `json:"from"`
	To   int64        `json:"to"`
	Loss storage.Loss `json:"loss"`
}

func (d *disk) savedPath() string { return filepath.Join(d.Directory, "state.json") }

// save writes what saved is to its file, whole or not at all.
func (d *disk) save() error {
	d.store.mu.RLock()
	s := saved{Version: savedVersion, Nodes: map[string]savedNode{}, Kinds: map[string]savedHistory{}, Batches: d.sealedBatches}
	for name, n := range d.store.nodes {
		s.Nodes[name] = savedNode{
			Network: n.network, Syscalls: n.syscalls, GPU: n.gpu, Flows: n.flows.saved(), Calls: n.calls.saved(), Scrapes: n.scrapes.saved(),
		}
	}
	for _, shelf := range d.store.histories() {
		s.Kinds[shelf.kind()] = savedHistory{Covered: *shelf.edge(), Evictions: shelf.lost().saved()}
	}
	d.store.mu.RUnlock()
	text, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("cannot save the state: %w", err)
	}
	temporary := d.savedPath() + ".tmp"
	if err := writeSynced(temporary, text); err != nil {
		return fmt.Errorf("cannot save the state: %w", err)
	}
	if err := errors.Join(os.Rename(temporary, d.savedPath()), block.SyncDirectory(d.Directory)); err != nil {
		return fmt.Errorf("cannot save the state: %w", err)
	}
	return nil
}

func writeSynced(path string, text []byte) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	return errors.Join(err, file.Sync(), file.Close())
}

// restore reads what save wrote. A new directory covers the time from now on, and one whose state cannot be read has lost what
// nodes had told; its records are there.
func (d *disk) restore() error {
	text, err := os.ReadFile(d.savedPath())
	if errors.Is(err, os.ErrNotExist) {
		return d.save()
	}
	if err != nil {
		return err
	}
	var s saved
	if err := json.Unmarshal(text, &s); err != nil {
		d.Logger.Error("The state of the store cannot be read: what nodes had lost is not known any more", zap.Error(err))
		return nil
	}
	if s.Version != savedVersion {
		return fmt.Errorf("%s has version %d and this orb8 knows %d: use the orb8 that wrote it, or a later one", d.savedPath(), s.Version, savedVersion)
	}
	for name, n := range s.Nodes {
		d.store.nodes[name] = &node{
			network: n.Network, syscalls: n.Syscalls, gpu: n.GPU,
			flows: n.Flows.restored(), calls: n.Calls.restored(), scrapes: n.Scrapes.restored(),
		}
	}
	for _, shelf := range d.store.histories() {
		if h, known := s.Kinds[shelf.kind()]; known {
			*shelf.edge() = h.Covered
			*shelf.lost() = restoredLosses(h.Evictions)
		}
	}
	d.sealedBatches = s.Batches
	for _, id := range s.Batches {
		d.recent.add(id)
	}
	return nil
}

func (r *reports) saved() savedReports {
	return savedReports{
		Time: r.last.time, Started: r.last.started, Interval: r.last.interval, Loss: r.last.loss, Seen: r.seen, Losses: r.losses.saved(),
	}
}

func (r *savedReports) restored() reports {
	return reports{
		last:   report{time: r.Time, started: r.Started, interval: r.Interval, loss: r.Loss},
		seen:   r.Seen,
		losses: restoredLosses(r.Losses),
	}
}

func (l *losses) saved() []savedSpan {
	var spans []savedSpan
	for _, s := range l.spans {
		spans = append(spans, savedSpan{From: s.from, To: s.to, Loss: s.loss})
	}
	return spans
}

func restoredLosses(spans []savedSpan) losses {
	var l losses
	for _, s := range spans {
		l.add(span{from: s.From, to: s.To, loss: s.Loss})
	}
	return l
}
