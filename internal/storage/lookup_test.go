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
		selection []LookupFilter
		want      bool
	}{
		"nothing set":         {nil, true},
		"an empty filter":     {[]LookupFilter{{}}, true},
		"name":                {[]LookupFilter{{Names: []string{"www.example.com"}}}, true},
		"another name":        {[]LookupFilter{{Names: []string{"example.com"}}}, false},
		"any of two names":    {[]LookupFilter{{Names: []string{"db", "*.example.com"}}}, true},
		"type":                {[]LookupFilter{{Types: []string{"A", "aaaa"}}}, true},
		"another type":        {[]LookupFilter{{Types: []string{"A"}}}, false},
		"response code":       {[]LookupFilter{{RCodes: []string{"nxdomain"}}}, true},
		"another code":        {[]LookupFilter{{RCodes: []string{"timeout"}}}, false},
		"client":              {[]LookupFilter{{Flows: question(Filter{Pods: []string{"shop/web-0"}})}}, true},
		"server":              {[]LookupFilter{{Flows: question(Filter{Ports: []uint16{53}})}}, true},
		"another direction":   {[]LookupFilter{{Flows: question(Filter{Directions: []flow.Direction{flow.Ingress}})}}, false},
		"all fields":          {[]LookupFilter{{Names: []string{"www.*"}, Types: []string{"AAAA"}, RCodes: []string{"NXDOMAIN"}, Flows: question(Filter{Pods: []string{"web-0"}})}}, true},
		"all fields but one":  {[]LookupFilter{{Names: []string{"www.*"}, Types: []string{"AAAA"}, RCodes: []string{"NXDOMAIN"}, Flows: question(Filter{Pods: []string{"web-1"}})}}, false},
		"any of two filters":  {[]LookupFilter{{Types: []string{"A"}}, {RCodes: []string{"NXDOMAIN"}}}, true},
		"none of two filters": {[]LookupFilter{{Types: []string{"A"}}, {RCodes: []string{"NOERROR"}}}, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, tt.want, (&LookupSelection{Allow: tt.selection}).Match(lookup()))
			denies := tt.want && len(tt.selection) > 0
			assert.Equal(t, !denies, (&LookupSelection{Deny: tt.selection}).Match(lookup()))
		})
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
			t.Skip("the pattern or the name is none of ours, or means something else to path.Match")
		}
		assert.Equal(t, want, matchPattern(pattern, name))
	})
}
