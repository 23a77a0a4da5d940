package orb8storeexporter

import (
	"reflect"
	"slices"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"

	"github.com/orb8/orb8/internal/flow"
)

// One record with bytes that are no UTF-8 would make every answer that it is in fail: whichever attribute a sender puts them in,
// none reaches the store.
func TestTextOfAnybodyIsUTF8(t *testing.T) {
	for _, key := range append(keys(everything()), keysOfOwners...) {
		logs := everything()
		for _, rl := range logs.ResourceLogs().All() {
			if slices.Contains(keysOfOwners, key) {
				rl.Resource().Attributes().PutStr(key, "owner")
			}
			spoil(rl.Resource().Attributes(), key)
			for _, lr := range rl.ScopeLogs().At(0).LogRecords().All() {
				spoil(lr.Attributes(), key)
			}
		}
		store := &fakeStore{}
		exporter, _ := start(t, store)
		// Of what is malformed now the sender hears; the others are there.
		_ = exporter.ConsumeLogs(t.Context(), logs)
		require.NotZero(t, len(store.flows)+len(store.lookups)+len(store.statuses)+len(store.counts), key)
		for _, written := range []any{
			store.flows, store.events, store.lookups, store.statuses, store.counts, store.calls, store.anomalies, store.callsStatuses, store.gpuStatuses,
		} {
			requireText(t, key, reflect.ValueOf(written))
		}
	}
}

// keysOfOwners name a pod's owners: one of them is read.
var keysOfOwners = []string{
	flow.AttrDeployment, flow.AttrStatefulSet, flow.AttrDaemonSet, flow.AttrCronJob, flow.AttrJob, flow.AttrReplicaSet,
}

// everything is a batch of all kinds, with every text that they have.
func everything() plog.Logs {
	logs, _, _, _, node := golden()
	r := record(443)
	r.Interfaces, r.Destination.Name = []string{"eth0", "br0"}, "www.example.com"
	node.Unavailable, node.Drops = map[string]string{"drops": "no tracepoint"}, map[string]uint64{"no_socket": 1}
	node.Probes = []flow.ProbeCost{{Program: "tc", Runs: 1}}
	l, c, e, n, s := lookup(), counts(2), call(), anomaly(), callsStatus()
	c.Calls[0].Errors = map[string]uint64{"EIO": 1}
	s.Unavailable = map[string]string{"latency": "no tracepoint"}
	add := resource(logs)
	r.PutTo(add())
	l.PutTo(add())
	node.PutTo(add())
	c.PutTo(add(), c.Calls[0].Call.ABI)
	e.PutTo(add())
	n.PutTo(add())
	s.PutTo(add())
	for _, rl := range logs.ResourceLogs().All() {
		for name, value := range map[string]string{
			flow.AttrCgroupPath: "/a", flow.AttrContainerID: "c0ffee", flow.AttrRuntime: "containerd", flow.AttrPodUID: "uid",
			flow.AttrPodQOSClass: "burstable", flow.AttrNamespace: "shop", flow.AttrContainer: "web", flow.AttrUnit: "web.service",
			flow.AttrLabels: "app=web", flow.AttrService: "web",
		} {
			rl.Resource().Attributes().PutStr(name, value)
		}
	}
	return logs
}

func keys(logs plog.Logs) (all []string) {
	seen := map[string]bool{}
	note := func(a pcommon.Map) {
		for key := range a.All() {
			if !seen[key] {
				seen[key] = true
				all = append(all, key)
			}
		}
	}
	for _, rl := range logs.ResourceLogs().All() {
		note(rl.Resource().Attributes())
		for _, lr := range rl.ScopeLogs().At(0).LogRecords().All() {
			note(lr.Attributes())
		}
	}
	return all
}

// spoil puts such a byte into every text of an attribute.
func spoil(a pcommon.Map, key string) {
	if v, ok := a.Get(key); ok {
		spoilValue(v)
	}
}

func spoilValue(v pcommon.Value) {
	switch v.Type() {
	case pcommon.ValueTypeStr:
		v.SetStr(v.Str() + "\xff")
	case pcommon.ValueTypeSlice:
		for _, one := range v.Slice().All() {
			spoilValue(one)
		}
	case pcommon.ValueTypeMap:
		spoiled := pcommon.NewMap()
		for name, one := range v.Map().All() {
			spoilValue(one)
			one.CopyTo(spoiled.PutEmpty(name + "\xff"))
		}
		spoiled.CopyTo(v.Map())
	}
}

func requireText(t *testing.T, key string, v reflect.Value) {
	t.Helper()
	switch v.Kind() {
	case reflect.String:
		assert.True(t, utf8.ValidString(v.String()), "%s became %q", key, v.String())
	case reflect.Pointer:
		if !v.IsNil() {
			requireText(t, key, v.Elem())
		}
	case reflect.Slice:
		for i := range v.Len() {
			requireText(t, key, v.Index(i))
		}
	case reflect.Map:
		for name, value := range v.Seq2() {
			requireText(t, key, name)
			requireText(t, key, value)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			requireText(t, key, v.Field(i))
		}
	}
}
