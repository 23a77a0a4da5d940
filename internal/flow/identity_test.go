package flow

import (
	"reflect"
	"testing"

	"github.com/stretchr/testify/assert"
	"go.opentelemetry.io/collector/pdata/pcommon"
)

// Every field goes and comes, also those that are there only tomorrow. A process is what records say, and not resources.
func TestIdentityRoundTrip(t *testing.T) {
	var id Identity
	for i, v := 0, reflect.ValueOf(&id).Elem(); i < v.NumField(); i++ {
		if v.Field(i).Kind() == reflect.String {
			v.Field(i).SetString(v.Type().Field(i).Name)
		} else {
			v.Field(i).SetUint(uint64(i + 1))
		}
	}
	for kind, attribute := range workloadAttributes {
		t.Run(kind, func(t *testing.T) {
			want := id
			want.WorkloadKind = kind
			a := pcommon.NewMap()
			want.PutTo(a, PrefixSource)
			process, _ := a.Get(PrefixSource + AttrProcessName)
			pid, _ := a.Get(PrefixSource + AttrProcessPID)
			assert.Equal(t, want.Process, process.Str())
			assert.EqualValues(t, want.PID, pid.Int())
			name, _ := a.Get(PrefixSource + attribute)
			assert.Equal(t, want.Workload, name.Str())
			want.Process, want.PID = "", 0
			assert.Equal(t, want, ReadIdentity(a, PrefixSource))

			resource := pcommon.NewMap()
			want.PutTo(resource, "")
			want.KubernetesNode = ""
			assert.Equal(t, want, ReadIdentity(resource, ""), "the node is the record's")
		})
	}
	empty := pcommon.NewMap()
	(&Identity{}).PutTo(empty, "")
	assert.Zero(t, empty.Len())
}
