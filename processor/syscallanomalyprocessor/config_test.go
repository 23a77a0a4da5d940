package syscallanomalyprocessor

import (
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/confmap/confmaptest"

	"github.com/orb8/orb8/processor/syscallanomalyprocessor/internal/metadata"
)

func TestConfig(t *testing.T) {
	conf, err := confmaptest.LoadConf(filepath.Join("testdata", "config.yaml"))
	require.NoError(t, err)
	read := func(name string) *Config {
		sub, err := conf.Sub(component.NewIDWithName(metadata.Type, name).String())
		require.NoError(t, err)
		cfg := testConfig()
		require.NoError(t, sub.Unmarshal(cfg))
		require.NoError(t, confmap.Validate(cfg))
		return cfg
	}
	assert.Equal(t, testConfig(), read(""))

	cfg := read("all")
	id := component.MustNewIDWithName("file_storage", "profiles")
	want := &Config{
		Storage: &id, SaveInterval: time.Minute, Workload: [][]string{{"service.name"}, {"k8s.namespace.name", "k8s.pod.name"}},
		Learning: Learning{Window: time.Hour, MinIntervals: 10}, MaxProfiles: 500, Expiry: 48 * time.Hour, Cooldown: time.Minute,
		Rules: RulesConfig{
			Disable: []string{"io_uring", "never_seen_call"}, Severity: map[string]string{"mount": "critical"}, Files: []string{"testdata/rules.yaml"},
			Custom: []Rule{{
				Name: "getppid_storm", Description: "it asks for its parent all the time", Kind: kindRate, Severity: "info", Syscalls: []string{"getppid"},
				Rate: &Rate{Factor: 100, Deviations: 10, Minimum: 1000, Intervals: 100},
			}},
			Exceptions: []Exception{{Name: "storage_driver", Rules: []string{"*mount"}, Namespaces: []string{"kube-system"}, Containers: []string{"csi-*"}}},
		},
	}
	assert.Equal(t, want, cfg)

	rules, err := cfg.Rules.load()
	require.NoError(t, err)
	find := func(name string) *rule {
		if i := slices.IndexFunc(rules.rules, func(r *rule) bool { return r.Name == name }); i >= 0 {
			return rules.rules[i]
		}
		return nil
	}
	assert.Nil(t, find("io_uring"))
	assert.Equal(t, "nobody has seen that before", find("never_seen_call").Description, "a rule of the file in place of the one that is disabled")
	assert.Equal(t, "critical", find("mount").severity.String())
	assert.NotNil(t, find("getppid_storm"))
	exec := find("exec_after_download")
	assert.False(t, exec.learn)
	assert.Equal(t, map[string]string{"pathname": "pathname"}, exec.After.Match)
	assert.Equal(t, 30*time.Second, exec.After.Within)
	names := func(r *rule) (names []string) {
		for _, e := range r.exceptions {
			names = append(names, e.Name)
		}
		return names
	}
	assert.Equal(t, []string{"installer"}, names(exec))
	assert.Equal(t, []string{"debuggers"}, names(find("ptrace_control")))
	assert.Contains(t, names(find("unmount")), "storage_driver")
}

func TestConfigErrors(t *testing.T) {
	rule := func(change func(*Rule)) func(*Config) {
		return func(c *Config) {
			r := Rule{Name: "mine", Description: "x", Severity: "info", Syscalls: []string{"mount"}}
			change(&r)
			c.Rules.Custom = []Rule{r}
		}
	}
	after := func(change func(*After)) func(*Config) {
		return rule(func(r *Rule) {
			r.After = &After{Syscalls: []string{"open"}, Within: time.Second}
			change(r.After)
		})
	}
	rate := func(change func(*Rate)) func(*Config) {
		return rule(func(r *Rule) {
			r.Kind, r.Rate = kindRate, &Rate{Factor: 2, Intervals: 1}
			change(r.Rate)
		})
	}
	exception := func(e Exception) func(*Config) { return func(c *Config) { c.Rules.Exceptions = []Exception{e} } }
	for _, tt := range []struct {
		change func(*Config)
		err    string
	}{
		{func(c *Config) { c.Workload = nil }, "workload: is empty; use lists of resource attributes such as [container.id]"},
		{func(c *Config) { c.Workload = [][]string{{"a"}, {}} }, "workload: list 2 is empty or has an empty name; use names of resource attributes such as container.id"},
		{func(c *Config) { c.SaveInterval = 0 }, "save_interval: 0s is too short; use 1s or more"},
		{func(c *Config) { c.Learning.Window = 0 }, "learning.window: 0s is too short; use 1s or more"},
		{func(c *Config) { c.Expiry = time.Hour }, "expiry: 1h0m0s is too short; use 24h0m0s or more"},
		{func(c *Config) { c.Cooldown = -1 }, "cooldown: -1ns is too short; use 0s or more"},
		{func(c *Config) { c.Learning.MinIntervals = 0 }, "learning.min_intervals: 0 is out of range; use 1 or more"},
		{func(c *Config) { c.MaxProfiles = 100_001 }, "max_profiles: 100001 is out of range; use 1 to 100000"},
		{func(c *Config) { c.Rules.Disable = []string{"mounts"} }, `rules.disable: there is no rule "mounts"; use names out of never_seen_call, unusual_rate, `},
		{func(c *Config) { c.Rules.Severity = map[string]string{"mounts": "info"} }, `rules.severity: there is no rule "mounts"; use names out of never_seen_call, `},
		{func(c *Config) { c.Rules.Severity = map[string]string{"mount": "high"} }, `rule "mount": severity: severity "high": use info, warning or critical`},
		{func(c *Config) { c.Rules.Files = []string{"testdata/none.yaml"} }, "rules.files: open testdata/none.yaml: "},
		{func(c *Config) { c.Rules.Files = []string{"testdata/config.yaml"} }, "rules.files: testdata/config.yaml: "},
		{rule(func(r *Rule) { r.Name = "" }), `rule "": name: use lower-case letters, digits and underscores, such as ptrace_control`},
		{rule(func(r *Rule) { r.Name = "My Rule" }), `rule "My Rule": name: use lower-case letters`},
		{rule(func(r *Rule) { r.Name = "mount" }), `rule "mount": name: there is one of this name; choose another, and put the other into rules.disable`},
		{rule(func(r *Rule) { r.Description = "" }), `rule "mine": description: is empty; say in a few words`},
		{rule(func(r *Rule) { r.Severity = "" }), `rule "mine": severity: severity "": use info, warning or critical`},
		{rule(func(r *Rule) { r.Kind = "maybe" }), `rule "mine": kind: "maybe" is not one; use call, new or rate`},
		{rule(func(r *Rule) { r.Syscalls = nil }), `rule "mine": syscalls: is empty; name the system calls`},
		{rule(func(r *Rule) { r.Syscalls = []string{"mout"} }), `rule "mine": syscalls: "mout" is no system call; use names such as openat`},
		{rule(func(r *Rule) { r.Syscalls = []string{"mount", "mount"} }), `rule "mine": syscalls: "mount" is there twice; name it once`},
		{rule(func(r *Rule) { r.Condition = "attributes[" }), `rule "mine": condition: "attributes[": `},
		{rule(func(r *Rule) { r.Condition = `set(attributes["a"], 1)` }), `rule "mine": condition: `},
		{rule(func(r *Rule) { r.Kind, r.Condition = kindNew, "true" }), `rule "mine": condition, after: are for rules of kind call; leave them out`},
		{rule(func(r *Rule) { r.Kind = kindRate }), `rule "mine": rate: is for rules of kind rate, which need it`},
		{rule(func(r *Rule) { r.Rate = &Rate{} }), `rule "mine": rate: is for rules of kind rate; leave it out`},
		{rate(func(r *Rate) { r.Factor = 0.5 }), `rule "mine": rate.factor: 0.5 is out of range; use 1 or more`},
		{rate(func(r *Rate) { r.Deviations = -1 }), `rule "mine": rate.deviations: -1 is out of range; use 0 or more`},
		{rate(func(r *Rate) { r.Share = -1 }), `rule "mine": rate.share: -1 is out of range; use 0 or more`},
		{rate(func(r *Rate) { r.Minimum = -1 }), `rule "mine": rate.minimum: -1 is out of range; use 0 or more`},
		{rate(func(r *Rate) { r.Intervals = 0 }), `rule "mine": rate.intervals: 0 is out of range; use 1 or more`},
		{after(func(a *After) { a.Syscalls = nil }), `rule "mine": after.syscalls: is empty; name the system calls that come first`},
		{after(func(a *After) { a.Syscalls = []string{"x"} }), `rule "mine": after.syscalls: "x" is no system call; use names such as openat`},
		{after(func(a *After) { a.Within = 0 }), `rule "mine": after.within: 0s is out of range; use more than 0s, up to 1h`},
		{after(func(a *After) { a.Same = "pod" }), `rule "mine": after.same: "pod" is not one; use process or container`},
		{after(func(a *After) { a.Condition = "1" }), `rule "mine": after.condition: "1": `},
		{exception(Exception{Host: true}), "exception without a name: name it, to find it again"},
		{exception(Exception{Name: "e"}), `exception "e": says not whose calls it is for, or which; give syscalls, workloads, `},
		{exception(Exception{Name: "e", Host: true, Syscalls: []string{"x"}}), `exception "e": syscalls: "x" is no system call; use names such as openat`},
		{exception(Exception{Name: "e", Condition: "("}), `exception "e": condition: "(": `},
		{exception(Exception{Name: "e", Host: true, Rules: []string{"mounts"}}), `exception "e": rules: no rule fits "mounts"; use names or patterns of rules that are on or in rules.disable`},
		{rule(func(r *Rule) { r.Exceptions = []Exception{{Name: "e"}} }), `rule "mine": exception "e": says not whose calls it is for`},
		{rule(func(r *Rule) { r.Exceptions = []Exception{{Name: "e", Host: true, Rules: []string{"a"}}} }), `rule "mine": exception "e": rules: a: is inside of a rule and for that alone; leave rules out`},
	} {
		cfg := testConfig()
		tt.change(cfg)
		assert.ErrorContains(t, confmap.Validate(cfg), tt.err)
	}
}

func TestRuleFileErrors(t *testing.T) {
	for text, want := range map[string]string{
		"rules: [{name: a, sycalls: [mount]}]":      "sycalls",
		"rule: []":                                  "has invalid keys: rule",
		"rules: {name: a}":                          "rules",
		"rules: [{name: a, after: {within: soon}}]": "within",
		"- a":                  "cannot unmarshal",
		"rules: [":             "yaml",
		"rules: [{name: [a]}]": "name",
		"rules: [{1: a}]":      "1",
		"exceptions: [{name: a, processes: {a: b}}]":       "processes",
		"rules: [{name: a, rate: {factor: much}}]":         "factor",
		"rules: [{name: a, learn: perhaps}]":               "learn",
		"rules: [{name: a, exceptions: [{process: [a]}]}]": "process",
	} {
		_, err := parseRuleFile([]byte(text))
		assert.ErrorContains(t, err, want, text)
	}
}

// FuzzRuleFile: whatever a file says, it is refused with an error or becomes rules that work.
func FuzzRuleFile(f *testing.F) {
	f.Add([]byte("rules: [{name: a, description: b, severity: info, kind: rate, rate: {factor: 2, intervals: 1}, learn: false}]"))
	f.Add([]byte("rules: [{name: a, description: b, severity: info, syscalls: [execve], after: {syscalls: [chmod], within: 1s, match: {a: b}}}]"))
	f.Add([]byte("rules: [{name: a, description: b, severity: info, syscalls: [mount], condition: 'attributes[\"a\"] == 1'}]"))
	f.Add([]byte("exceptions: [{name: a, processes: ['*?']}]"))
	f.Add([]byte("rules: [{1: a, [b]: c}]"))
	f.Add([]byte("a: &a [*a]"))
	h := &harness{}
	f.Fuzz(func(t *testing.T, text []byte) {
		file, err := parseRuleFile(text)
		if err != nil {
			return
		}
		set, err := compile(file, nil)
		if err != nil {
			return
		}
		h.t = t
		for _, r := range set.rules {
			ld, records := newLogs(cart("a"))
			h.eventOf("x mount source=a").PutTo(records.AppendEmpty())
			rl := ld.ResourceLogs().At(0)
			ev := event{resource: rl, scope: rl.ScopeLogs().At(0), record: records.At(0)}
			if r.condition != nil {
				_, _ = ev.meets(t.Context(), r.condition)
			}
			c, err := set.call(callOf(t, "mount").ABI, "mount")
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range r.exceptions {
				_, _ = e.excuses(t.Context(), c, "shop/cart", mapOf(t, cart("a")), &ev)
			}
		}
	})
}

func TestMatch(t *testing.T) {
	for _, tt := range []struct {
		pattern, s string
		want       bool
	}{
		{"", "", true},
		{"", "a", false},
		{"*", "", true},
		{"a*c", "abbc", true},
		{"a*c", "abbcd", false},
		{"*b*", "aabaa", true},
		{"a?c", "abc", true},
		{"a?c", "ac", false},
		{"runc:[*", "runc:[2:INIT]", true},
		{"(*)", "(nginx)", true},
		{"/a/*", "/a/b/c", true},
		{"*aab", "aaaab", true},
		{"a**", "a", true},
		{"?", "*", true},
	} {
		assert.Equal(t, tt.want, match(tt.pattern, tt.s), "%+v", tt)
	}
}
