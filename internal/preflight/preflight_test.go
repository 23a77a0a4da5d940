package preflight

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestCheckAsJSON(t *testing.T) {
	b, err := json.Marshal([]Check{
		{Name: "kernel", Detail: "Linux 6.18.44"},
		{Name: "btf", Status: Warn, Detail: "none", Fix: "build one"},
		{Name: "bpf", Status: Fail, Detail: "forbidden", Fix: "allow it"},
	})
	require.NoError(t, err)
	assert.JSONEq(t, `[
		{"name": "kernel", "status": "ok", "detail": "Linux 6.18.44"},
		{"name": "btf", "status": "warn", "detail": "none", "fix": "build one"},
		{"name": "bpf", "status": "fail", "detail": "forbidden", "fix": "allow it"}
	]`, string(b))
}

func TestErr(t *testing.T) {
	ok := Check{Name: "kernel", Detail: "Linux 6.18.44"}
	warn := Check{Name: "btf", Status: Warn, Detail: "none", Fix: "build one"}
	caps := Check{Name: "capabilities", Status: Fail, Detail: "this process lacks CAP_BPF", Fix: "run as root, or grant: CAP_BPF"}
	bpf := Check{Name: "bpf", Status: Fail, Detail: "forbidden", Fix: "allow it"}
	for _, tt := range []struct {
		name   string
		checks []Check
		want   string
	}{
		{name: "nothing checked"},
		{name: "fine", checks: []Check{ok}},
		{name: "warnings are no failures", checks: []Check{ok, warn}},
		{
			name:   "one",
			checks: []Check{ok, caps, warn},
			want:   "orb8 cannot collect on this host: capabilities: this process lacks CAP_BPF; run as root, or grant: CAP_BPF",
		},
		{
			name:   "several in one line",
			checks: []Check{caps, bpf},
			want: "orb8 cannot collect on this host: capabilities: this process lacks CAP_BPF; run as root, or grant: CAP_BPF; " +
				"bpf: forbidden; allow it",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := Err(tt.checks)
			if tt.want == "" {
				assert.NoError(t, err)
				return
			}
			assert.EqualError(t, err, tt.want)
		})
	}
}
