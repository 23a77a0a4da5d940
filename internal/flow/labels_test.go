package flow

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestLabels(t *testing.T) {
	labels := map[string]string{
		"app": "web", "app.kubernetes.io/name": "shop", "empty": "", "pod-template-hash": "7d9f", "apps.kubernetes.io/pod-index": "3",
	}
	text := FormatLabels(labels)
	assert.Equal(t, "app=web,app.kubernetes.io/name=shop,empty=", text)
	for key, want := range map[string]string{"app": "web", "app.kubernetes.io/name": "shop", "empty": ""} {
		got, ok := Label(text, key)
		assert.True(t, ok, key)
		assert.Equal(t, want, got)
	}
	for _, key := range []string{"ap", "app.kubernetes.io", "web", "pod-template-hash", "app=web", ""} {
		_, ok := Label(text, key)
		assert.False(t, ok, key)
	}
	assert.Equal(t, map[string]string{"app": "web", "app.kubernetes.io/name": "shop", "empty": ""}, ParseLabels(text))
	assert.Nil(t, ParseLabels(FormatLabels(nil)))
}

func TestLabelsAreBounded(t *testing.T) {
	labels := map[string]string{"a": "1", "b": strings.Repeat("x", maxLabelBytes), "c": "3"}
	assert.Equal(t, "a=1", FormatLabels(labels), "no label is cut")
	for i := range 300 {
		labels["k"+strings.Repeat("y", i)] = "value"
	}
	delete(labels, "b")
	assert.LessOrEqual(t, len(FormatLabels(labels)), maxLabelBytes)
}
