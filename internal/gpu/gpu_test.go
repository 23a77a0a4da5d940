package gpu

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestAttributes(t *testing.T) {
	for want, attributes := range map[string]map[string]string{
		"":                             nil,
		"hw.gpu.task=general":          {"hw.gpu.task": "general"},
		"a=1,b=,c=3":                   {"c": "3", "a": "1", "b": ""},
		`a\=b=c\,d,e\\=\\`:             {"a=b": "c,d", `e\`: `\`},
		"=":                            {"": ""},
		"gpu.pipe=fp16,hw.state=ok":    {"hw.state": "ok", "gpu.pipe": "fp16"},
		`reason=power cap\, sw,x=\=\=`: {"reason": "power cap, sw", "x": "=="},
	} {
		assert.Equal(t, want, FormatAttributes(attributes))
		got, err := ParseAttributes(want)
		require.NoError(t, err)
		assert.Equal(t, attributes, got)
	}
	_, err := ParseAttributes("a=1,b")
	assert.EqualError(t, err, `attribute "b" has no value`)
	_, err = ParseAttributes(`a\=1`)
	assert.EqualError(t, err, `attribute "a=1" has no value`)
}

// What is written is read back, and what is read is written back once it is in the one way.
func FuzzAttributes(f *testing.F) {
	f.Add("a=1,b=2", "k", "v")
	f.Add(`\,=\`, `\`, "=,")
	f.Fuzz(func(t *testing.T, s, key, value string) {
		want := map[string]string{key: value, "other": "one"}
		got, err := ParseAttributes(FormatAttributes(want))
		require.NoError(t, err)
		require.Equal(t, want, got)
		if attributes, err := ParseAttributes(s); err == nil {
			again, err := ParseAttributes(FormatAttributes(attributes))
			require.NoError(t, err)
			require.Equal(t, attributes, again)
		}
	})
}
