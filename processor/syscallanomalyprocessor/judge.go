package syscallanomalyprocessor

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/orb8/orb8/internal/syscalls"
)

// verdict is what came of a rule that was met: reported, or why not.
type verdict int

const (
	reported verdict = iota
	reasonException
	reasonLearning
	reasonUsual
	reasonCooldown
	numVerdicts
	// notMet is when there is nothing to judge.
	notMet
)

// witness is what met a rule: an event, or a count.
type witness struct {
	event *event
	// before is the first half of a sequence.
	before *syscalls.Event
	// at is the end of the interval of a count. calls is how many it had; rate and baseline are for rules of kind rate.
	at             time.Time
	calls          int64
	rate, baseline float64
	// unseen tells that the workload never made the call before.
	unseen bool
}

// judge decides whether a rule that was met is reported.
func (b *batch) judge(ctx context.Context, r *rule, c *call, w *witness) verdict {
	v, held := b.decide(ctx, r, c, w)
	if v == reported {
		b.report(r, c, w, held)
	}
	b.d.counters.verdict(ctx, r, v)
	return v
}

func (b *batch) decide(ctx context.Context, r *rule, c *call, w *witness) (v verdict, held int64) {
	for _, e := range r.exceptions {
		excused, err := e.excuses(ctx, c, b.profile.workload, b.attrs, w.event)
		if err != nil {
			b.conditionFailed(ctx, r, err)
		}
		if excused {
			return reasonException, 0
		}
	}
	u := usage{r.Name, c.Call}
	if r.Kind == "" || r.Kind == kindCall {
		if reason, ok := b.learned(r, u); ok {
			return reason, 0
		}
	}
	held, ok := b.profile.cool(u, b.now, b.d.cfg.Cooldown)
	if !ok {
		return reasonCooldown, 0
	}
	return reported, held
}

// learned tells whether the profile holds a rule of kind call back. While a workload is learned, what is grave is reported: a
// warning the first time, what is critical each time. After that the workload is used to what it did.
func (b *batch) learned(r *rule, u usage) (reason verdict, ok bool) {
	if b.profile.learning() {
		before := r.learn && b.profile.learnUsual(u, b.now)
		return reasonLearning, r.severity == syscalls.SeverityInfo || r.severity == syscalls.SeverityWarning && before
	}
	_, usual := b.profile.usual[u]
	return reasonUsual, usual && r.learn
}

func (b *batch) report(r *rule, c *call, w *witness, held int64) {
	n := syscalls.Anomaly{
		Time: w.at, Workload: b.profile.workload, Rule: r.Name, Severity: r.severity, Call: c.Call,
		Calls: uint64(w.calls), Rate: w.rate, Baseline: w.baseline,
	}
	if w.event != nil {
		n.Evidence = w.event.read()
		n.Time = n.Evidence.Time
	}
	n.Message = b.message(r, c, w, held)
	b.found = append(b.found, n)
}

// message is one sentence: who did what, what that means, and what is left unsaid.
func (b *batch) message(r *rule, c *call, w *witness, held int64) string {
	var s strings.Builder
	s.WriteString(b.profile.workload)
	switch {
	case r.Kind == kindRate:
		fmt.Fprintf(&s, " made %s %.4g times a second, usual are %.4g", c.name, w.rate, w.baseline)
	case w.event != nil:
		e := w.event.read()
		s.WriteString(": " + e.Identity.Process + " called " + show(e))
		if w.before != nil {
			fmt.Fprintf(&s, " %s after %s", e.Time.Sub(w.before.Time).Round(time.Millisecond), show(w.before))
		}
	case w.calls == 1:
		s.WriteString(" called " + c.name)
	default:
		fmt.Fprintf(&s, " called %s %d times", c.name, w.calls)
	}
	s.WriteString(": " + r.Description)
	if w.unseen {
		s.WriteString("; this workload never made the call before")
	}
	if held > 0 {
		fmt.Fprintf(&s, " (%d more like it were held back since the last report)", held)
	}
	return s.String()
}

// show writes a call as strace does, with the names of its arguments, and without the quotes of what is not empty.
func show(e *syscalls.Event) string {
	arguments := make([]string, 0, len(e.Arguments))
	for _, a := range e.Arguments {
		arguments = append(arguments, a.Name+"="+cmp.Or(a.Value, `""`))
	}
	return e.Call.Name() + "(" + strings.Join(arguments, ", ") + ")"
}
