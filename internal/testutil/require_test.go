package testutil

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"
)

// recorder stands in for the test that Require would end.
type recorder struct {
	testing.TB
	outcome string
}

func (*recorder) Helper() {}

func (r *recorder) Fatalf(format string, args ...any) {
	r.outcome = "fatal: " + fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func (r *recorder) Skip(args ...any) {
	r.outcome = "skip: " + fmt.Sprint(args...)
	runtime.Goexit()
}

func TestRequire(t *testing.T) {
	for _, tt := range []struct {
		name, env, what string
		ok              bool
		want            string
	}{
		{name: "met", env: "bpf", what: "bpf", ok: true, want: "went on"},
		{name: "not met, nothing required", what: "bpf", want: "skip: not root"},
		{name: "not met, something else required", env: "cluster,gpu", what: "bpf", want: "skip: not root"},
		{name: "not met, a longer name required", env: "bpftool", what: "bpf", want: "skip: not root"},
		{name: "not met, required", env: "gpu,bpf", what: "bpf", want: "fatal: ORB8_REQUIRE lists bpf, but not root"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv(EnvRequire, tt.env)
			r := &recorder{}
			done := make(chan struct{})
			go func() {
				defer close(done)
				Require(r, tt.what, tt.ok, "not root")
				r.outcome = "went on"
			}()
			<-done
			assert.Equal(t, tt.want, r.outcome)
		})
	}
}
