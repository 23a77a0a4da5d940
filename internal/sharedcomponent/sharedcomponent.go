// Package sharedcomponent gives the pipelines of one configuration the same component, so that what it does is done once.
package sharedcomponent

import (
	"context"
	"sync"

	"go.opentelemetry.io/collector/component"
)

// Components are those of one factory, by their configuration.
type Components[T component.Component] struct {
	mu     sync.Mutex
	shared map[component.Config]*Component[T]
}

// Get returns the component of a configuration, which create makes if there is none.
func (c *Components[T]) Get(cfg component.Config, create func() (T, error)) (*Component[T], error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s, ok := c.shared[cfg]; ok {
		return s, nil
	}
	inner, err := create()
	if err != nil {
		return nil, err
	}
	s := &Component[T]{Inner: inner, forget: func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.shared, cfg)
	}}
	if c.shared == nil {
		c.shared = map[component.Config]*Component[T]{}
	}
	c.shared[cfg] = s
	return s, nil
}

// Component starts its inner component at the first Start and stops it at the first Shutdown: the pipelines of a Collector
// start and stop together.
type Component[T component.Component] struct {
	Inner  T
	forget func()

	start, stop       sync.Once
	startErr, stopErr error
}

// Start returns the error of the first Start.
func (s *Component[T]) Start(ctx context.Context, host component.Host) error {
	s.start.Do(func() { s.startErr = s.Inner.Start(ctx, host) })
	return s.startErr
}

// Shutdown returns the error of the first Shutdown. After it, Get makes another component.
func (s *Component[T]) Shutdown(ctx context.Context) error {
	s.stop.Do(func() {
		s.forget()
		s.stopErr = s.Inner.Shutdown(ctx)
	})
	return s.stopErr
}
