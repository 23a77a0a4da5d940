package syscallanomalyprocessor

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/orb8/orb8/processor/syscallanomalyprocessor/internal/metadata"
)

// Causes of a profile's end.
const (
	causeExpired = iota
	causeDisplaced
	numCauses
)

// counters are the processor's metrics of what it did. Their attribute sets are made once.
type counters struct {
	telemetry *metadata.TelemetryBuilder
	causes    [numCauses]metric.AddOption
	// rules has for each rule one option a verdict, by rule and verdict.
	rules map[*rule]*[numVerdicts]metric.AddOption
}

func newCounters(telemetry *metadata.TelemetryBuilder) *counters {
	return &counters{
		telemetry: telemetry,
		causes: [numCauses]metric.AddOption{
			causeExpired:   option(attribute.String("cause", "expired")),
			causeDisplaced: option(attribute.String("cause", "displaced")),
		},
		rules: map[*rule]*[numVerdicts]metric.AddOption{},
	}
}

func option(attributes ...attribute.KeyValue) metric.AddOption {
	return metric.WithAttributeSet(attribute.NewSet(attributes...))
}

// verdict counts what came of a rule that was met. It is called with the detector locked.
func (c *counters) verdict(ctx context.Context, r *rule, v verdict) {
	options := c.rules[r]
	if options == nil {
		options = &[numVerdicts]metric.AddOption{reported: option(attribute.String("rule", r.Name), attribute.String("severity", r.severity.String()))}
		for v, reason := range map[verdict]string{
			reasonException: "exception", reasonLearning: "learning", reasonUsual: "usual", reasonCooldown: "cooldown",
		} {
			options[v] = option(attribute.String("rule", r.Name), attribute.String("reason", reason))
		}
		c.rules[r] = options
	}
	if v == reported {
		c.telemetry.ProcessorSyscallAnomalyAnomalies.Add(ctx, 1, options[v])
	} else {
		c.telemetry.ProcessorSyscallAnomalySuppressed.Add(ctx, 1, options[v])
	}
}

func (c *counters) conditionError(ctx context.Context, r *rule) {
	c.telemetry.ProcessorSyscallAnomalyConditionErrors.Add(ctx, 1, option(attribute.String("rule", r.Name)))
}

func (c *counters) evicted(ctx context.Context, cause int, n int64) {
	c.telemetry.ProcessorSyscallAnomalyEvictedProfiles.Add(ctx, n, c.causes[cause])
}

func (c *counters) malformed(ctx context.Context) {
	c.telemetry.ProcessorSyscallAnomalyMalformedRecords.Add(ctx, 1)
}

func (c *counters) unprofiled(ctx context.Context) {
	c.telemetry.ProcessorSyscallAnomalyUnprofiledRecords.Add(ctx, 1)
}
