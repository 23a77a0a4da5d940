package podenrichmentprocessor

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componentstatus"
	"go.opentelemetry.io/collector/processor"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.uber.org/zap"
	k8s "k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/orb8/orb8/internal/kubernetes"
	"github.com/orb8/orb8/processor/podenrichmentprocessor/internal/metadata"
)

const (
	// sweepInterval is the time between two looks for deleted pods to be forgotten.
	sweepInterval = time.Minute
	kubeletPort   = "10250"
)

// pods is the part of the processor that asks Kubernetes.
type pods struct {
	*namer
	cfg       *KubernetesConfig
	set       processor.Settings
	telemetry *metadata.TelemetryBuilder
	waiting   *waiting
	reasons   [numReasons]metric.AddOption

	// node is the name of this node, whose being there is checked once; empty on a gateway.
	node    string
	checked sync.Once

	stop    context.CancelFunc
	running sync.WaitGroup
}

func newPods(cfg *KubernetesConfig, set processor.Settings, telemetry *metadata.TelemetryBuilder, e *enricher) *pods {
	p := &pods{cfg: cfg, set: set, telemetry: telemetry, waiting: newWaiting(cfg.Wait, telemetry, set.Logger)}
	p.namer = &namer{
		cache:  kubernetes.NewCache(cfg.Scope == scopeCluster, cfg.KeepDeleted, p.changed),
		absent: newAbsentees(),
		labels: cfg.Labels,
		ask:    func() {},
		local:  &e.local, source: &e.source, destination: &e.destination,
	}
	for r, name := range []string{unknown: "unknown", ambiguous: "ambiguous"} {
		p.reasons[r] = metric.WithAttributeSet(attribute.NewSet(attribute.String("reason", name)))
	}
	return p
}

// start begins to follow the API, which need not be there yet. It fails only if nobody says where to look for it.
func (p *pods) start(host component.Host, node string) error {
	api, err := kubernetes.RESTConfig(p.cfg.AuthType, p.cfg.Context)
	if err != nil {
		return fmt.Errorf("kubernetes: %w", err)
	}
	client, err := k8s.NewForConfig(api)
	if err != nil {
		return err
	}
	if err := p.registerMetrics(); err != nil {
		return err
	}
	var scope kubernetes.Scope
	if p.cfg.Scope == scopeNode {
		scope.Node = node
		p.node = node
	}
	if p.cfg.PodsFrom == fromKubelet {
		if scope.Kubelet, err = p.kubelet(api, node); err != nil {
			return err
		}
		p.ask = scope.Kubelet.Ask
	}
	watcher := kubernetes.NewWatcher(p.cache, func(err error) { p.health(host, err) }, func(objects string) {
		p.telemetry.ProcessorPodEnrichmentWatches.Add(context.Background(), 1, metric.WithAttributes(attribute.String("objects", objects)))
	})
	var ctx context.Context
	ctx, p.stop = context.WithCancel(context.Background())
	p.running.Go(func() { watcher.Run(ctx, client, scope) })
	p.running.Go(func() { p.sweep(ctx) })
	p.waiting.start()
	return nil
}

// changed is called when something became known.
func (p *pods) changed() {
	p.waiting.wake()
	if p.node == "" || !p.cache.Ready() {
		return
	}
	p.checked.Do(func() {
		if _, known := p.cache.Node(p.node); !known {
			p.set.Logger.Warn("No node of the cluster has the name of this one, so its pods are not known; give node_name what "+
				"`kubectl get nodes` shows", zap.String("node_name", p.node))
		}
	})
}

func (p *pods) kubelet(api *rest.Config, node string) (*kubernetes.Kubelet, error) {
	tls, err := p.cfg.KubeletTLS.LoadTLSConfig(context.Background())
	if err != nil {
		return nil, fmt.Errorf("kubelet_tls: %w", err)
	}
	return kubernetes.NewKubelet(cmp.Or(p.cfg.KubeletEndpoint, "https://"+net.JoinHostPort(node, kubeletPort)), tls, api)
}

func (p *pods) shutdown() {
	if p.stop != nil {
		p.stop()
		p.running.Wait()
	}
	p.waiting.shutdown()
}

// health tells once that the API has gone away, and once that it is back.
func (p *pods) health(host component.Host, err error) {
	if err != nil {
		p.set.Logger.Warn("The Kubernetes API does not answer; names are those that are known, and new pods have none", zap.Error(err))
		componentstatus.ReportStatus(host, componentstatus.NewRecoverableErrorEvent(err))
		return
	}
	p.set.Logger.Info("The Kubernetes API answers again")
	componentstatus.ReportStatus(host, componentstatus.NewEvent(componentstatus.StatusOK))
}

func (p *pods) sweep(ctx context.Context) {
	ticker := time.NewTicker(sweepInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			p.cache.Sweep()
		}
	}
}

func (p *pods) registerMetrics() error {
	kinds := map[string]metric.ObserveOption{}
	for kind := range p.cache.Sizes() {
		kinds[kind] = metric.WithAttributeSet(attribute.NewSet(attribute.String("kind", kind)))
	}
	if err := p.telemetry.RegisterProcessorPodEnrichmentCachedCallback(func(_ context.Context, o metric.Int64Observer) error {
		for kind, size := range p.cache.Sizes() {
			o.Observe(int64(size), kinds[kind])
		}
		return nil
	}); err != nil {
		return err
	}
	if err := p.telemetry.RegisterProcessorPodEnrichmentWaitingCallback(func(_ context.Context, o metric.Int64Observer) error {
		o.Observe(int64(p.waiting.count()))
		return nil
	}); err != nil {
		return err
	}
	return p.telemetry.RegisterProcessorPodEnrichmentOutageCallback(func(_ context.Context, o metric.Float64Observer) error {
		seconds := 0.0
		if since := p.cache.Stale(); !since.IsZero() {
			seconds = time.Since(since).Seconds()
		}
		o.Observe(seconds)
		return nil
	})
}

func (p *pods) report(t *attempt) {
	for r, count := range t.unnamed {
		if count > 0 {
			p.telemetry.ProcessorPodEnrichmentUnnamed.Add(context.Background(), count, p.reasons[r])
		}
	}
}
