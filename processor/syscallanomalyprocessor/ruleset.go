package syscallanomalyprocessor

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/open-telemetry/opentelemetry-collector-contrib/pkg/ottl"
	"github.com/open-telemetry/opentelemetry-collector-contrib/pkg/ottl/contexts/ottllog"
	"github.com/open-telemetry/opentelemetry-collector-contrib/pkg/ottl/ottlfuncs"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.uber.org/zap"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/syscalls"
)

// Who made both calls of a sequence.
const (
	sameProcess   = "process"
	sameContainer = "container"
)

// condition is nil where every event meets it.
type condition = ottl.Condition[*ottllog.TransformContext]

// rule is a Rule that is ready for use.
type rule struct {
	*Rule
	severity   syscalls.Severity
	learn      bool
	condition  *condition
	first      *condition
	exceptions []*exception
}

// byCounts tells whether a count alone can meet the rule: an event has nothing to add.
func (r *rule) byCounts() bool { return r.condition == nil && r.After == nil }

// exception is an Exception that is ready for use.
type exception struct {
	*Exception
	condition *condition
}

// call is a system call and what there is to do when it is made.
type call struct {
	syscalls.Call
	name string
	// rules of kind call; first are those that it may be the first half of.
	rules, first []*rule
	// byCounts tells whether a count alone can meet one of rules.
	byCounts   bool
	rates, new []*rule
}

// ruleSet is all that Config.Rules says.
type ruleSet struct {
	rules []*rule
	// calls are found by ABI and name.
	calls map[syscalls.ABI]map[string]*call
	// new are the rules of kind new for calls without a name.
	new []*rule
}

// compile makes rules ready for use; disabled are names that exceptions may have. It fails, naming the rule, the field and the value, on what is not valid.
func compile(file RuleFile, disabled []string) (*ruleSet, error) {
	settings := component.TelemetrySettings{Logger: zap.NewNop()}
	parser, err := ottllog.NewParser(ottlfuncs.StandardConverters[*ottllog.TransformContext](), settings)
	if err != nil {
		return nil, fmt.Errorf("cannot make a parser of conditions: %w", err)
	}
	s := &ruleSet{calls: map[syscalls.ABI]map[string]*call{}}
	for i := range file.Rules {
		r := &file.Rules[i]
		if err := r.validate(); err != nil {
			return nil, err
		}
		if slices.ContainsFunc(s.rules, func(other *rule) bool { return other.Name == r.Name }) {
			return nil, fmt.Errorf("rule %q: name: there is one of this name; choose another, and put the other into rules.disable if it is not wanted", r.Name)
		}
		compiled, err := compileRule(&parser, r)
		if err != nil {
			return nil, fmt.Errorf("rule %q: %w", r.Name, err)
		}
		s.rules = append(s.rules, compiled)
	}
	for i := range file.Exceptions {
		e, err := compileException(&parser, &file.Exceptions[i])
		if err != nil {
			return nil, err
		}
		if err := s.except(e, disabled); err != nil {
			return nil, err
		}
	}
	s.index()
	return s, nil
}

// except gives an exception to its rules. It fails if there are none: somebody has misspelt them.
func (s *ruleSet) except(e *exception, disabled []string) error {
	for _, pattern := range e.Rules {
		fits := func(name string) bool { return match(pattern, name) }
		if !slices.ContainsFunc(disabled, fits) && !slices.ContainsFunc(s.rules, func(r *rule) bool { return fits(r.Name) }) {
			return fmt.Errorf("exception %q: rules: no rule fits %q; use names or patterns of rules that are on or in rules.disable", e.Name, pattern)
		}
	}
	for _, r := range s.rules {
		if len(e.Rules) == 0 || anyMatch(e.Rules, r.Name) {
			r.exceptions = append(r.exceptions, e)
		}
	}
	return nil
}

func compileRule(parser *ottl.Parser[*ottllog.TransformContext], r *Rule) (*rule, error) {
	c := &rule{Rule: r, learn: r.Learn == nil || *r.Learn}
	c.severity, _ = syscalls.ParseSeverity(r.Severity) // validated
	var err error
	if c.condition, err = compileCondition(parser, r.Condition); err != nil {
		return nil, err
	}
	if r.After != nil {
		if c.first, err = compileCondition(parser, r.After.Condition); err != nil {
			return nil, fmt.Errorf("after.%w", err)
		}
	}
	for i := range r.Exceptions {
		e, err := compileException(parser, &r.Exceptions[i])
		if err != nil {
			return nil, err
		}
		if len(e.Rules) > 0 {
			return nil, fmt.Errorf("exception %q: rules: %s: is inside of a rule and for that alone; leave rules out", e.Name, strings.Join(e.Rules, ", "))
		}
		c.exceptions = append(c.exceptions, e)
	}
	return c, nil
}

func compileException(parser *ottl.Parser[*ottllog.TransformContext], e *Exception) (*exception, error) {
	if err := e.validate(); err != nil {
		return nil, err
	}
	c, err := compileCondition(parser, e.Condition)
	if err != nil {
		return nil, fmt.Errorf("exception %q: %w", e.Name, err)
	}
	return &exception{Exception: e, condition: c}, nil
}

func compileCondition(parser *ottl.Parser[*ottllog.TransformContext], text string) (*condition, error) {
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	c, err := parser.ParseCondition(text)
	if err != nil {
		return nil, fmt.Errorf("condition: %q: %w; write it in OTTL, as attributes[%q] == %q", text, err, flow.AttrProcessName, "nc")
	}
	return c, nil
}

// index finds for every call that has a name what there is to do.
func (s *ruleSet) index() {
	var unnamed call
	named := map[string]*call{}
	get := func(name string) *call {
		if named[name] == nil {
			named[name] = &call{}
		}
		return named[name]
	}
	// Rules for all calls come last, so that those that name theirs come first.
	for _, r := range s.rules {
		for _, name := range r.Syscalls {
			get(name).add(r)
		}
		if r.After != nil {
			for _, name := range r.After.Syscalls {
				get(name).first = append(get(name).first, r)
			}
		}
		if len(r.Syscalls) == 0 {
			unnamed.add(r)
		}
	}
	s.new = unnamed.new
	for _, abi := range []syscalls.ABI{syscalls.X86_64, syscalls.I386, syscalls.X32, syscalls.ARM64, syscalls.ARM} {
		calls := map[string]*call{}
		for number, name := range abi.Names() {
			if name == "" {
				continue
			}
			c := &call{}
			if named[name] != nil {
				*c = *named[name]
			}
			c.Call, c.name = syscalls.Call{ABI: abi, Number: int32(number)}, name
			c.new, c.rates = slices.Concat(c.new, unnamed.new), slices.Concat(c.rates, unnamed.rates)
			calls[name] = c
		}
		s.calls[abi] = calls
	}
}

func (c *call) add(r *rule) {
	switch r.Kind {
	case kindNew:
		c.new = append(c.new, r)
	case kindRate:
		c.rates = append(c.rates, r)
	default:
		c.rules = append(c.rules, r)
		c.byCounts = c.byCounts || r.byCounts()
	}
}

// call returns what there is to do for a call of that name. Numbers without a name can only be new.
func (s *ruleSet) call(abi syscalls.ABI, name string) (*call, error) {
	if c, ok := s.calls[abi][name]; ok {
		return c, nil
	}
	number, err := syscalls.ParseCall(abi, name)
	if err != nil {
		return nil, err
	}
	return &call{Call: number, name: name, new: s.new}, nil
}

// qualified finds a call as Counts name it: those of another ABI than the node's own have it in front.
func (s *ruleSet) qualified(native syscalls.ABI, name string) (*call, error) {
	if c, ok := s.calls[native][name]; ok {
		return c, nil
	}
	if abi, rest, other := strings.Cut(name, "/"); other {
		foreign, err := syscalls.ParseABI(abi)
		if err != nil {
			return nil, err
		}
		return s.call(foreign, rest)
	}
	return s.call(native, name)
}

// excuses tells whether the exception is for a call. Without an event, what only an event tells does not fit.
func (e *exception) excuses(ctx context.Context, c *call, workload string, resource pcommon.Map, ev *event) (bool, error) {
	if len(e.Syscalls) > 0 && !slices.Contains(e.Syscalls, c.name) {
		return false, nil
	}
	if e.Host && inContainer(resource) {
		return false, nil
	}
	if len(e.Workloads) > 0 && !anyMatch(e.Workloads, workload) ||
		!fits(e.Namespaces, resource, flow.AttrNamespace) ||
		!fits(e.Images, resource, attrImage) ||
		!fits(e.Units, resource, flow.AttrUnit) ||
		!fits(e.Cgroups, resource, flow.AttrCgroupPath) ||
		!fits(e.Containers, resource, flow.AttrContainer) && !fits(e.Containers, resource, attrContainerName) {
		return false, nil
	}
	if len(e.Processes) > 0 && (ev == nil || !fits(e.Processes, ev.record.Attributes(), flow.AttrProcessName)) {
		return false, nil
	}
	if e.condition == nil {
		return true, nil
	}
	if ev == nil {
		return false, nil
	}
	return ev.meets(ctx, e.condition)
}

// fits tells whether an attribute fits one of the patterns. Where there are none, nothing is asked.
func fits(patterns []string, attrs pcommon.Map, attribute string) bool {
	if len(patterns) == 0 {
		return true
	}
	v, ok := attrs.Get(attribute)
	return ok && anyMatch(patterns, v.Str())
}

func inContainer(resource pcommon.Map) bool {
	for _, attribute := range []string{flow.AttrContainerID, flow.AttrPodUID} {
		if v, ok := resource.Get(attribute); ok && v.Str() != "" {
			return true
		}
	}
	return false
}

func anyMatch(patterns []string, s string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return match(p, s) })
}

// match tells whether s fits the pattern, in which * is any text, slashes included, and ? any byte. Brackets mean themselves:
// runtimes have them in the names of their processes.
func match(pattern, s string) bool {
	// Where the last star was, and how much of s it has taken.
	star, taken := -1, 0
	p, i := 0, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, taken = p, i
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == s[i]):
			p++
			i++
		case star >= 0:
			taken++
			p, i = star+1, taken
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}
