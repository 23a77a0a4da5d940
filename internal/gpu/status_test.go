package gpu

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"

	"github.com/orb8/orb8/internal/flow"
)

func TestStatusTravels(t *testing.T) {
	at := func(s int64) time.Time { return time.Unix(s, 5).UTC() }
	want := Status{
		Node: "node-1", Version: "1.2.3", Kernel: "6.1", Time: at(9), Started: at(1), Interval: 10 * time.Second,
		Models: map[string]uint32{"Tesla T4": 2, "": 1}, Instances: 7,
		Sources: []SourceStatus{
			{Name: "nvml", State: SourceUp, ScrapeTime: time.Millisecond}, {Name: "dcgm", State: SourceAbsent, Reason: "no exporter"},
		},
		Conflicts: []Conflict{{Device: "GPU-0", Kind: "owner", About: "container", First: "ml/a/main", Other: "ml/b/main", Since: at(3)}},
		Scrapes:   9, FailedScrapes: 2, ScrapeTime: 3 * time.Millisecond, LostEvents: 4,
	}
	res := pcommon.NewResource()
	res.Attributes().PutStr(flow.AttrNodeName, "node-1")
	lr := plog.NewLogRecord()
	want.PutTo(lr)
	assert.Equal(t, EventNameStatus, lr.EventName())
	assert.Equal(t, want, StatusFrom(res, lr))

	bare := Status{Node: "node-1", Time: at(9), Started: at(1), Interval: time.Second}
	lr = plog.NewLogRecord()
	bare.PutTo(lr)
	assert.Equal(t, bare, StatusFrom(res, lr))
}

// Who sends may be anybody.
func TestAStatusOfOthersIsReadAsFarAsItGoes(t *testing.T) {
	lr := plog.NewLogRecord()
	a := lr.Attributes()
	a.PutStr(AttrModels, "none")
	a.PutStr(AttrSources, "none")
	a.PutEmptySlice(AttrConflicts).AppendEmpty().SetStr("none")
	a.PutStr(AttrScrapes, "many")
	assert.Equal(t, Status{Time: time.Unix(0, 0).UTC(), Started: time.Unix(0, 0).UTC()}, StatusFrom(pcommon.NewResource(), lr))
	a.PutEmptySlice(AttrSources).AppendEmpty().SetEmptyMap().PutStr("name", "a\xffb")
	assert.Equal(t, []SourceStatus{{Name: "a\uFFFDb"}}, StatusFrom(pcommon.NewResource(), lr).Sources)
}
