package sharedcomponent

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component"
)

type counter struct {
	started, stopped int
}

var errStart, errStop = errors.New("cannot start"), errors.New("cannot stop")

func (c *counter) Start(context.Context, component.Host) error { c.started++; return errStart }
func (c *counter) Shutdown(context.Context) error              { c.stopped++; return errStop }

func TestPipelinesOfAConfigurationShareAComponent(t *testing.T) {
	var all Components[*counter]
	created := 0
	get := func(cfg component.Config) *Component[*counter] {
		c, err := all.Get(cfg, func() (*counter, error) { created++; return &counter{}, nil })
		require.NoError(t, err)
		return c
	}
	one, other := &struct{ int }{1}, &struct{ int }{1}
	c := get(one)
	require.Same(t, c, get(one))
	require.NotSame(t, c, get(other), "equal is not the same")
	assert.Equal(t, 2, created)
	for range 2 {
		assert.ErrorIs(t, c.Start(t.Context(), nil), errStart)
	}
	for range 2 {
		assert.ErrorIs(t, c.Shutdown(t.Context()), errStop)
	}
	assert.Equal(t, counter{1, 1}, *c.Inner)
	assert.NotSame(t, c, get(one), "a collector that is reloaded starts anew")
}

func TestWhatCannotBeMadeIsNotKept(t *testing.T) {
	var all Components[*counter]
	cfg := &struct{ int }{}
	_, err := all.Get(cfg, func() (*counter, error) { return nil, errStart })
	require.ErrorIs(t, err, errStart)
	c, err := all.Get(cfg, func() (*counter, error) { return &counter{}, nil })
	require.NoError(t, err)
	assert.NotNil(t, c.Inner)
}
