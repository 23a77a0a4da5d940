package kubernetes

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
)

// fakeKubelet answers as a kubelet does.
type fakeKubelet struct {
	pods   atomic.Pointer[corev1.PodList]
	broken atomic.Bool
}

func (f *fakeKubelet) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Header.Get("Authorization") != "Bearer secret":
		http.Error(w, "Unauthorized", http.StatusUnauthorized)
	case f.broken.Load():
		http.Error(w, "out of order", http.StatusInternalServerError)
	case r.URL.Path == "/pods":
		_ = json.NewEncoder(w).Encode(f.pods.Load())
	}
}

func (f *fakeKubelet) set(uids ...string) {
	list := &corev1.PodList{}
	for _, uid := range uids {
		list.Items = append(list.Items, corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: types.UID(uid), Name: "pod-" + uid}})
	}
	f.pods.Store(list)
}

func TestKubelet(t *testing.T) {
	fake := &fakeKubelet{}
	fake.set("a")
	server := httptest.NewServer(fake)
	defer server.Close()
	kubelet, err := NewKubelet(server.URL+"/", nil, &rest.Config{BearerToken: "secret"})
	require.NoError(t, err)

	health := make(chan error, 10)
	cache := NewCache(false, time.Hour, func() {})
	w := NewWatcher(cache, func(err error) { health <- err }, func(string) {})
	cache.expect(1)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		kubelet.follow(ctx, w)
		w.end()
	}()
	known := func(uid string) func() bool {
		return func() bool {
			kubelet.Ask()
			_, ok := cache.Pod(uid)
			return ok
		}
	}
	require.Eventually(t, known("a"), time.Minute, time.Millisecond)
	assert.Zero(t, cache.unsynced)
	fake.set("b")
	require.Eventually(t, known("b"), time.Minute, time.Millisecond)
	assert.True(t, known("a")(), "deleted pods are kept")
	fake.broken.Store(true)
	kubelet.Ask()
	select {
	case err := <-health:
		assert.EqualError(t, err, "cannot ask the kubelet for pods: "+server.URL+"/pods: 500 Internal Server Error: out of order")
	case <-time.After(time.Minute):
		t.Fatal("nobody hears of it")
	}
	fake.broken.Store(false)
	kubelet.Ask()
	select {
	case err := <-health:
		assert.NoError(t, err)
	case <-time.After(time.Minute):
		t.Fatal("nobody hears that it is back")
	}
	cancel()
	<-done
}

func TestKubeletThatDoesNotKnowUs(t *testing.T) {
	server := httptest.NewServer(&fakeKubelet{})
	defer server.Close()
	kubelet, err := NewKubelet(server.URL, nil, &rest.Config{})
	require.NoError(t, err)
	_, err = kubelet.pods(t.Context())
	assert.EqualError(t, err, server.URL+"/pods: 401 Unauthorized: Unauthorized")
	kubelet.client.CloseIdleConnections()
}
