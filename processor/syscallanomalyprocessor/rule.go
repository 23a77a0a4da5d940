package syscallanomalyprocessor

import (
	_ "embed"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/collector/confmap"
	"go.yaml.in/yaml/v3"

	"github.com/orb8/orb8/internal/syscalls"
)

//go:embed rules.yaml
var builtinRules []byte

// Kinds of rules.
const (
	// kindCall looks at each event of certain calls, and at counts where no event was seen.
	kindCall = "call"
	// kindNew is met by a call that the workload's profile does not have.
	kindNew = "new"
	// kindRate is met by a call that is made far more often than in the workload's profile.
	kindRate = "rate"
)

// RuleFile is what a file of rules holds.
type RuleFile struct {
	Rules      []Rule      `mapstructure:"rules"`
	Exceptions []Exception `mapstructure:"exceptions"`
}

// Rule says what an anomaly is.
type Rule struct {
	Name string `mapstructure:"name"`
	// Description says in a few words what it means when the rule is met. It becomes part of the message.
	Description string `mapstructure:"description"`
	// Kind is call, new or rate. Empty is call.
	Kind string `mapstructure:"kind"`
	// Severity is info, warning or critical.
	Severity string `mapstructure:"severity"`
	// Syscalls are names of system calls; empty with the kinds new and rate: all.
	Syscalls []string `mapstructure:"syscalls"`
	// Condition is an OTTL condition on the event. Empty: every event meets it.
	Condition string `mapstructure:"condition"`
	// After is what must have come before.
	After *After `mapstructure:"after"`
	// Rate is for the kind rate.
	Rate *Rate `mapstructure:"rate"`
	// Learn says that what a workload did while it was learned is usual for it. Nil: yes.
	Learn *bool `mapstructure:"learn"`
	// Tags are for people: identifiers of MITRE ATT&CK, as T1611.
	Tags []string `mapstructure:"tags"`
	// Exceptions are for this rule alone.
	Exceptions []Exception `mapstructure:"exceptions"`
}

// After is the first half of a sequence of two calls.
type After struct {
	Syscalls  []string `mapstructure:"syscalls"`
	Condition string   `mapstructure:"condition"`
	// Within is the longest time between the two.
	Within time.Duration `mapstructure:"within"`
	// Same is process or container: which of them made both. Empty is process.
	Same string `mapstructure:"same"`
	// Match maps arguments of the second call to those of the first that must be equal to them.
	Match map[string]string `mapstructure:"match"`
}

// Rate says what is far out of a call's own history. All of it must be so.
type Rate struct {
	// Factor is how many times the mean.
	Factor float64 `mapstructure:"factor"`
	// Deviations is how many standard deviations above the mean.
	Deviations float64 `mapstructure:"deviations"`
	// Share is how many times its mean share of all calls of the container: under load all calls become more, and their shares stay.
	Share float64 `mapstructure:"share"`
	// Minimum is in calls a second.
	Minimum float64 `mapstructure:"minimum"`
	// Intervals is in how many intervals the call must have been made before.
	Intervals int64 `mapstructure:"intervals"`
}

// Exception says whose calls do not meet a rule. All that is given must fit; of a list, one.
type Exception struct {
	Name string `mapstructure:"name"`
	// Rules are patterns; empty: all. Those of a rule's own exceptions are empty.
	Rules []string `mapstructure:"rules"`
	// Syscalls are names; empty: all of the rule's.
	Syscalls []string `mapstructure:"syscalls"`
	// Patterns, in which * is any text and ? any character.
	Workloads  []string `mapstructure:"workloads"`
	Namespaces []string `mapstructure:"namespaces"`
	Containers []string `mapstructure:"containers"`
	Images     []string `mapstructure:"images"`
	Units      []string `mapstructure:"units"`
	Cgroups    []string `mapstructure:"cgroups"`
	// Processes fit the name of the thread, which is known of events only.
	Processes []string `mapstructure:"processes"`
	// Host is true for processes in no container.
	Host bool `mapstructure:"host"`
	// Condition is an OTTL condition on the event.
	Condition string `mapstructure:"condition"`
}

// parseRuleFile fails, naming the key, on keys that there are not and values of a wrong type.
func parseRuleFile(text []byte) (RuleFile, error) {
	var file RuleFile
	var raw map[string]any
	if err := yaml.Unmarshal(text, &raw); err != nil {
		return file, err
	}
	return file, confmap.NewFromStringMap(raw).Unmarshal(&file)
}

// load returns the built-in and the user's rules and exceptions, compiled, without those that are disabled.
func (c *RulesConfig) load() (*ruleSet, error) {
	all, err := parseRuleFile(builtinRules)
	if err != nil {
		return nil, fmt.Errorf("cannot parse the built-in rules: %w", err)
	}
	known := all.Rules
	// Now, so that a rule of the user's can have the name of one that is not wanted.
	all.Rules = c.enabled(all.Rules)
	for _, path := range c.Files {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("rules.files: %w", err)
		}
		file, err := parseRuleFile(text)
		if err != nil {
			return nil, fmt.Errorf("rules.files: %s: %w", path, err)
		}
		all.Rules = append(all.Rules, file.Rules...)
		all.Exceptions = append(all.Exceptions, file.Exceptions...)
	}
	all.Rules = append(all.Rules, c.Custom...)
	all.Exceptions = append(all.Exceptions, c.Exceptions...)
	known = slices.Concat(known, all.Rules)
	for _, name := range c.Disable {
		if !slices.ContainsFunc(known, func(r Rule) bool { return r.Name == name }) {
			return nil, fmt.Errorf("rules.disable: there is no rule %q; use names out of %s", name, names(known))
		}
	}
	if err := c.override(all.Rules); err != nil {
		return nil, err
	}
	return compile(all, c.Disable)
}

// enabled returns the rules that are not disabled.
func (c *RulesConfig) enabled(rules []Rule) []Rule {
	var enabled []Rule
	for _, r := range rules {
		if !slices.Contains(c.Disable, r.Name) {
			enabled = append(enabled, r)
		}
	}
	return enabled
}

// override gives rules the severities that the user wants.
func (c *RulesConfig) override(rules []Rule) error {
	for name, severity := range c.Severity {
		i := slices.IndexFunc(rules, func(r Rule) bool { return r.Name == name })
		if i < 0 {
			return fmt.Errorf("rules.severity: there is no rule %q; use names out of %s", name, names(rules))
		}
		rules[i].Severity = severity
	}
	return nil
}

func names(rules []Rule) string {
	all := make([]string, 0, len(rules))
	for _, r := range rules {
		all = append(all, r.Name)
	}
	return strings.Join(all, ", ")
}

// validate names the rule, the field, its value and what is allowed.
func (r *Rule) validate() error {
	fail := func(format string, args ...any) error {
		return fmt.Errorf("rule %q: "+format, append([]any{r.Name}, args...)...)
	}
	if r.Name == "" || strings.ContainsFunc(r.Name, func(c rune) bool { return c != '_' && (c < 'a' || c > 'z') && (c < '0' || c > '9') }) {
		return fail("name: use lower-case letters, digits and underscores, such as ptrace_control")
	}
	if r.Description == "" {
		return fail("description: is empty; say in a few words what it means when the rule is met")
	}
	if _, err := syscalls.ParseSeverity(r.Severity); err != nil {
		return fail("severity: %w", err)
	}
	if err := knownCalls(r.Syscalls); err != nil {
		return fail("syscalls: %w", err)
	}
	switch r.Kind {
	case "", kindCall:
		if len(r.Syscalls) == 0 {
			return fail("syscalls: is empty; name the system calls that the rule looks at")
		}
		if r.Rate != nil {
			return fail("rate: is for rules of kind %s; leave it out", kindRate)
		}
		if r.After != nil {
			if err := r.After.validate(); err != nil {
				return fail("after.%w", err)
			}
		}
		return nil
	case kindNew, kindRate:
	default:
		return fail("kind: %q is not one; use %s, %s or %s", r.Kind, kindCall, kindNew, kindRate)
	}
	if r.Condition != "" || r.After != nil {
		return fail("condition, after: are for rules of kind %s; leave them out", kindCall)
	}
	if (r.Kind == kindRate) != (r.Rate != nil) {
		return fail("rate: is for rules of kind %s, which need it", kindRate)
	}
	if r.Rate != nil {
		if err := r.Rate.validate(); err != nil {
			return fail("rate.%w", err)
		}
	}
	return nil
}

func (a *After) validate() error {
	if len(a.Syscalls) == 0 {
		return errors.New("syscalls: is empty; name the system calls that come first")
	}
	if err := knownCalls(a.Syscalls); err != nil {
		return fmt.Errorf("syscalls: %w", err)
	}
	if a.Within <= 0 || a.Within > time.Hour {
		return fmt.Errorf("within: %s is out of range; use more than 0s, up to 1h", a.Within)
	}
	if a.Same != "" && a.Same != sameProcess && a.Same != sameContainer {
		return fmt.Errorf("same: %q is not one; use %s or %s", a.Same, sameProcess, sameContainer)
	}
	return nil
}

func (r *Rate) validate() error {
	switch {
	case r.Factor < 1:
		return fmt.Errorf("factor: %g is out of range; use 1 or more", r.Factor)
	case r.Deviations < 0:
		return fmt.Errorf("deviations: %g is out of range; use 0 or more", r.Deviations)
	case r.Share < 0:
		return fmt.Errorf("share: %g is out of range; use 0 or more", r.Share)
	case r.Minimum < 0:
		return fmt.Errorf("minimum: %g is out of range; use 0 or more", r.Minimum)
	case r.Intervals < 1:
		return fmt.Errorf("intervals: %d is out of range; use 1 or more", r.Intervals)
	}
	return nil
}

func (e *Exception) validate() error {
	if e.Name == "" {
		return errors.New("exception without a name: name it, to find it again")
	}
	if err := knownCalls(e.Syscalls); err != nil {
		return fmt.Errorf("exception %q: syscalls: %w", e.Name, err)
	}
	if !e.Host && e.Condition == "" && len(e.Syscalls)+len(e.Workloads)+len(e.Namespaces)+len(e.Containers)+len(e.Images)+len(e.Units)+len(e.Cgroups)+len(e.Processes) == 0 {
		return fmt.Errorf("exception %q: says not whose calls it is for, or which; give syscalls, workloads, namespaces, containers, images, units, "+
			"cgroups, processes, host or condition, or disable the rule", e.Name)
	}
	return nil
}

func knownCalls(names []string) error {
	for i, name := range names {
		if slices.Contains(names[:i], name) {
			return fmt.Errorf("%q is there twice; name it once", name)
		}
		if !syscalls.Known(name) {
			return fmt.Errorf("%q is no system call; use names such as openat", name)
		}
	}
	return nil
}
