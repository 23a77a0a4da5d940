package storage

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/orb8/orb8/internal/flow"
)

func selector(s string) LabelSelector {
	parsed, err := ParseLabelSelector(s)
	if err != nil {
		panic(err)
	}
	return parsed
}

func TestLabelSelectorIsKubectls(t *testing.T) {
	sets := []labels.Set{
		{}, {"app": "web"}, {"app": "web", "tier": "front"}, {"app": "db", "size": "12"}, {"size": "-3"}, {"size": "x"}, {"app": ""},
		{"app.kubernetes.io/name": "web", "canary": ""},
	}
	for _, s := range []string{
		"app=web", "app==web", "app!=web", "app in (web,db)", "app notin (web, db)", "app", "!app", "size>3", "size<3",
		"app=web,tier=front", "app,!tier", "app=", "canary", "app.kubernetes.io/name in (web)", "app in (,web)",
	} {
		kubectl, err := labels.Parse(s)
		require.NoError(t, err, s)
		for _, set := range sets {
			who := flow.Identity{Pod: "p", Labels: flow.FormatLabels(set)}
			assert.Equal(t, kubectl.Matches(set), selector(s).Match(&who), "%s of %s", s, set)
		}
	}
	assert.False(t, selector("app!=web").Match(&flow.Identity{}), "what is no pod has no labels to tell")
}

func TestLabelSelectorRefuses(t *testing.T) {
	for s, want := range map[string]string{
		"":          `"" selects every pod`,
		"a b":       `"a b" is no label selector: `,
		"a in":      `"a in" is no label selector: `,
		"-=x":       `"-=x" is no label selector: `,
		"size>many": `"size>many" is no label selector: `,
	} {
		_, err := ParseLabelSelector(s)
		assert.ErrorContains(t, err, want)
	}
}

func FuzzLabelSelector(f *testing.F) {
	for _, s := range []string{"app=web", "a in (b,c),!d", "x>1", "e notin (f", ",,", "a=,b"} {
		f.Add(s, "app", "web")
	}
	f.Fuzz(func(t *testing.T, s, key, value string) {
		parsed, err := ParseLabelSelector(s)
		if err != nil || strings.ContainsAny(key+value, "=,") {
			return
		}
		kubectl, err := labels.Parse(s)
		require.NoError(t, err)
		set := labels.Set{key: value}
		if text := flow.FormatLabels(set); text != "" {
			require.Equal(t, kubectl.Matches(set), parsed.Match(&flow.Identity{Pod: "p", Labels: text}), "%s of %s", s, text)
		}
	})
}
