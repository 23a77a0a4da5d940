package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// settled is how long a watch must last to be believed: one that a server cannot keep ends at once.
const settled = 2 * time.Second

var errShort = errors.New("watches end as soon as they begin")

// source is the watch of one kind of objects.
type source struct {
	watcher   *Watcher
	objects   string
	reflector *cache.Reflector

	mu sync.Mutex
	// filling is the watch whose first objects are those that there are, until all have come.
	filling *steadiness
	synced  bool
}

// lister is what the client has for each kind of object.
type lister[L runtime.Object] interface {
	List(context.Context, metav1.ListOptions) (L, error)
	Watch(context.Context, metav1.ListOptions) (watch.Interface, error)
}

// sink trims the API's objects and hands them to the cache. No other copy is kept: the reflector calls it as its store.
type sink[O runtime.Object, T any] struct {
	trim        func(O) T
	set, remove func(T)
	replace     func([]T)
	// replaced is called after replace.
	replaced func()
}

func newSource[O, L runtime.Object, T any](w *Watcher, client kubernetes.Interface, objects string, expected O, api lister[L],
	selector fields.Selector, into sink[O, T],
) *source {
	s := &source{watcher: w, objects: objects}
	into.replaced = s.replaced
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			options.FieldSelector = selector.String()
			list, err := api.List(ctx, options)
			if err != nil {
				s.failed(ctx, err)
			}
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			options.FieldSelector = selector.String()
			return s.watch(ctx, api.Watch, options)
		},
	}
	s.reflector = cache.NewReflectorWithOptions(cache.ToListWatcherWithWatchListSemantics(lw, client), expected, &into,
		cache.ReflectorOptions{Name: objects})
	return s
}

func (s *source) watch(ctx context.Context, begin func(context.Context, metav1.ListOptions) (watch.Interface, error),
	options metav1.ListOptions,
) (watch.Interface, error) {
	fills := options.SendInitialEvents != nil && *options.SendInitialEvents
	stream, err := begin(ctx, options)
	if err != nil {
		if fills && apierrors.IsInvalid(err) {
			return nil, err // an older server, which is to be asked for a list
		}
		s.failed(ctx, err)
		if fills && !apierrors.IsResourceExpired(err) && !apierrors.IsTooManyRequests(err) {
			// Were the reflector to see that nobody listens, it would wait in a place where it does not see the end of the
			// context. The list, which it then asks for, fails alike, and it waits in another.
			err = errors.New(err.Error())
		}
		return nil, err
	}
	s.watcher.onRestart(s.objects)
	steady := &steadiness{
		settle: func() { s.watcher.regain(s.objects) },
		fail:   func() { s.failed(ctx, errShort) },
	}
	if fills {
		s.mu.Lock()
		s.filling = steady
		s.mu.Unlock()
	} else {
		steady.begin()
	}
	return &steadyWatch{stream, steady}, nil
}

// replaced is called when the cache holds what there is.
func (s *source) replaced() {
	s.mu.Lock()
	steady, first := s.filling, !s.synced
	s.filling, s.synced = nil, true
	s.mu.Unlock()
	if first {
		s.watcher.cache.synced()
	}
	if steady != nil {
		steady.begin()
	}
}

// failed says that the API did not answer, unless that is because nobody wants to know any more.
func (s *source) failed(ctx context.Context, err error) {
	if ctx.Err() == nil {
		s.watcher.lose(s.objects, time.Now(), fmt.Errorf("cannot watch %s: %w", s.objects, err))
	}
}

// steadiness is whether a watch has lasted for long enough. Either settle or fail is called, once.
type steadiness struct {
	settle, fail func()

	mu    sync.Mutex
	timer *time.Timer
	over  bool
}

func (s *steadiness) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.over && s.timer == nil {
		s.timer = time.AfterFunc(settled, s.settle)
	}
}

func (s *steadiness) end() {
	s.mu.Lock()
	early := !s.over && (s.timer == nil || s.timer.Stop())
	s.over = true
	s.mu.Unlock()
	if early {
		s.fail()
	}
}

// steadyWatch sees the end of a watch: the reflector stops each, also one that has ended by itself.
type steadyWatch struct {
	watch.Interface
	steady *steadiness
}

func (w *steadyWatch) Stop() {
	w.steady.end()
	w.Interface.Stop()
}

// Add takes an object that was made.
func (s *sink[O, T]) Add(o any) error { return s.Update(o) }

// Update takes an object that has changed.
func (s *sink[O, T]) Update(o any) error {
	s.set(s.trim(o.(O)))
	return nil
}

// Delete takes the last state of an object.
func (s *sink[O, T]) Delete(o any) error {
	s.remove(s.trim(o.(O)))
	return nil
}

// Replace takes all objects that there are, which have gone through the Transformer unless the server has sent a list.
func (s *sink[O, T]) Replace(objects []any, _ string) error {
	all := make([]T, 0, len(objects))
	for _, o := range objects {
		switch o := o.(type) {
		case O:
			all = append(all, s.trim(o))
		case T:
			all = append(all, o)
		}
	}
	s.replace(all)
	s.replaced()
	return nil
}

// Resync has nothing to do: there is no second copy.
func (s *sink[O, T]) Resync() error { return nil }

// Transformer trims objects as they arrive, so that a large cluster is never in memory as a whole.
func (s *sink[O, T]) Transformer() cache.TransformFunc {
	return func(o any) (any, error) { return s.trim(o.(O)), nil }
}
