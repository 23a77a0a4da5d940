package podenrichmentprocessor

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"sync"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componentstatus"
	"go.opentelemetry.io/collector/processor"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.uber.org/zap"

	"github.com/orb8/orb8/internal/cgroup"
	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/processor/podenrichmentprocessor/internal/metadata"
)

// enricher is what the processors of one configuration share. It starts with the first of them and stops with the
// first: the pipelines of a Collector start and stop together, and what it knows by then it still tells.
type enricher struct {
	cfg       *Config
	set       processor.Settings
	telemetry *metadata.TelemetryBuilder
	outcomes  [numOutcomes]metric.AddOption
	// findMount is cgroup.FindMount.
	findMount func(path string) (cgroup.Mount, error)

	local, source, destination attributeNames

	startOnce, stopOnce sync.Once
	startErr, stopErr   error
	node                string
	// resolver is nil where there is no cgroup v2 hierarchy, and on a gateway.
	resolver *cgroup.Resolver
	// pods is nil where Kubernetes is not configured.
	pods *pods
}

func newEnricher(set processor.Settings, cfg *Config) (*enricher, error) {
	telemetry, err := metadata.NewTelemetryBuilder(set.TelemetrySettings)
	if err != nil {
		return nil, err
	}
	e := &enricher{
		cfg:         cfg,
		set:         set,
		telemetry:   telemetry,
		findMount:   cgroup.FindMount,
		local:       namesAfter(""),
		source:      namesAfter(flow.PrefixSource),
		destination: namesAfter(flow.PrefixDestination),
	}
	for o, name := range []string{resolved: "resolved", unresolved: "unresolved", otherNode: "other_node"} {
		e.outcomes[o] = metric.WithAttributeSet(attribute.NewSet(attribute.String("outcome", name)))
	}
	if k := cfg.Kubernetes.Get(); k != nil {
		e.pods = newPods(k, set, telemetry, e)
	}
	return e, nil
}

func (e *enricher) start(_ context.Context, host component.Host) error {
	e.startOnce.Do(func() { e.startErr = e.open(host) })
	return e.startErr
}

func (e *enricher) open(host component.Host) error {
	e.node = cmp.Or(e.cfg.NodeName, os.Getenv("NODE_NAME"))
	if e.node == "" {
		var err error
		if e.node, err = os.Hostname(); err != nil {
			return fmt.Errorf("node_name: is empty, and so is the host name: %w", err)
		}
	}
	if e.pods != nil {
		if err := e.pods.start(host, e.node); err != nil {
			return err
		}
	}
	if e.cfg.Gateway {
		return nil
	}
	return e.openCgroups(host)
}

func (e *enricher) openCgroups(host component.Host) error {
	mount, err := e.findMount(e.cfg.CgroupPath)
	if err != nil && e.cfg.CgroupPath != "" {
		return fmt.Errorf("cgroup_path: %w", err)
	}
	if err == nil {
		e.resolver, err = cgroup.NewResolver(mount.Path, e.set.Logger)
	}
	if err != nil {
		// Flows without names are worth more than none.
		e.set.Logger.Warn("Cgroups of this node stay without container, pod and unit", zap.Error(err))
		componentstatus.ReportStatus(host, componentstatus.NewPermanentErrorEvent(err))
		return nil
	}
	if mount.Partial {
		e.set.Logger.Warn("Only a part of the cgroups of this node is known; give the container the host's /sys/fs/cgroup",
			zap.String("path", mount.Path))
	}
	return e.telemetry.RegisterProcessorPodEnrichmentCgroupsCallback(func(_ context.Context, o metric.Int64Observer) error {
		o.Observe(int64(e.resolver.Len()))
		return nil
	})
}

func (e *enricher) shutdown() error {
	e.stopOnce.Do(func() {
		if e.pods != nil {
			e.pods.shutdown()
		}
		e.telemetry.Shutdown()
		if e.resolver != nil {
			e.stopErr = e.resolver.Close()
		}
	})
	return e.stopErr
}
