package kernels

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestParse(t *testing.T) {
	tests := map[string]struct {
		written string
		want    []output
	}{
		"nothing ran":          {"", nil},
		"one after the other":  {"PASS\r\nexit 0\r\nFAIL\r\nexit 1\r\n", []output{{"PASS\n", 0}, {"FAIL\n", 1}}},
		"silence":              {"exit 2\n", []output{{"", 2}}},
		"the machine halted":   {"exit 0\nhalf a li", []output{{"", 0}, {"half a li", -1}}},
		"text that looks like": {"exit\nexit now\nexit 0\n", []output{{"exit\nexit now\n", 0}}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) { assert.Equal(t, tt.want, parse([]byte(tt.written))) })
	}
}
