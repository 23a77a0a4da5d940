package storage

import (
	"net/netip"
	"path"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/orb8/orb8/internal/flow"
)

func lookup() *flow.Lookup {
	return &flow.Lookup{
		Direction: flow.Egress, Transport: flow.UDP,
		Client: flow.Endpoint{Addr: netip.MustParseAddrPort("10.244.0.4:41000"), Identity: flow.Identity{Namespace: "shop", Pod: "web-0"}},
		Server: flow.Endpoint{Addr: netip.MustParseAddrPort("10.96.0.10:53")},
		Name:   "WWW.Example.com", Type: "AAAA", RCode: "NXDOMAIN",
	}
}

func TestLookupSelection(t *testing.T) {
	question := func(f Filter) Selection { return Selection{Allow: []Filter{f}} }
	tests := map[string]struct {
		selection LookupSelection
		want      bool
	}{
		"nothing set":         {nil, true},
		"an empty filter":     {LookupSelection{{}}, true},
		"name":                {LookupSelection{{Names: []string{"www.example.com"}}}, true},
		"another name":        {LookupSelection{{Names: []string{"example.com"}}}, false},
		"any of two names":    {LookupSelection{{Names: []string{"db", "*.example.com"}}}, true},
		"type":                {LookupSelection{{Types: []string{"A", "aaaa"}}}, true},
		"another type":        {LookupSelection{{Types: []string{"A"}}}, false},
		"response code":       {LookupSelection{{RCodes: []string{"nxdomain"}}}, true},
		"another code":        {LookupSelection{{RCodes: []string{"timeout"}}}, false},
		"client":              {LookupSelection{{Flows: question(Filter{Pods: []string{"shop/web-0"}})}}, true},
		"server":              {LookupSelection{{Flows: question(Filter{Ports: []uint16{53}})}}, true},
		"another direction":   {LookupSelection{{Flows: question(Filter{Directions: []flow.Direction{flow.Ingress}})}}, false},
		"all fields":          {LookupSelection{{Names: []string{"www.*"}, Types: []string{"AAAA"}, RCodes: []string{"NXDOMAIN"}, Flows: question(Filter{Pods: []string{"web-0"}})}}, true},
		"all fields but one":  {LookupSelection{{Names: []string{"www.*"}, Types: []string{"AAAA"}, RCodes: []string{"NXDOMAIN"}, Flows: question(Filter{Pods: []string{"web-1"}})}}, false},
		"any of two filters":  {LookupSelection{{Types: []string{"A"}}, {RCodes: []string{"NXDOMAIN"}}}, true},
		"none of two filters": {LookupSelection{{Types: []string{"A"}}, {RCodes: []string{"NOERROR"}}}, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) { assert.Equal(t, tt.want, tt.selection.Match(lookup())) })
	}
}

func TestPatterns(t *testing.T) {
	tests := []struct {
		pattern, name string
		want          bool
	}{
		{"www.example.com", "www.example.com", true},
		{"www.example.com", "www.example.com.", false},
		{"", "", true},
		{"*", "", true},
		{"*", "www.example.com", true},
		{"*.example.com", "www.example.com", true},
		{"*.example.com", "a.b.example.com", true},
		{"*.example.com", "example.com", false},
		{"www.*", "www.example.com", true},
		{"www.*", "www", false},
		{"w*.com", "www.example.com", true},
		{"*example*", "www.example.com", true},
		{"**.com", "www.example.com", true},
		{"a*a", "a", false},
		{"a*a", "aa", true},
		{"a*b*a", "abba", true},
		{"a*b*a", "aba", true},
		{"a*ab*b", "aabb", true},
		{"a*ab*ab", "aab", false},
		{"[w]*", "www", false},
		{`a\032b`, `a\032b`, true},
	}
	for _, tt := range tests {
		assert.Equal(t, tt.want, matchPattern(tt.pattern, tt.name), "%q of %q", tt.pattern, tt.name)
	}
}

// The standard library's patterns are the same where they have no other signs and the name no slash.
func FuzzPattern(f *testing.F) {
	f.Add("*.example.com", "www.example.com")
	f.Add("a*b*a", "abba")
	f.Add("**a", "aaa")
	f.Fuzz(func(t *testing.T, pattern, name string) {
		want, err := path.Match(pattern, name)
		if err != nil || strings.ContainsAny(pattern, `[]?\`) || strings.Contains(name, "/") {
			t.Skip()
		}
		assert.Equal(t, want, matchPattern(pattern, name))
	})
}
