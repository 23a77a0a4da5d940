package kubernetes

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/transport"
)

const (
	// kubeletInterval is the time between two questions when nobody asks for a pod that is not known.
	kubeletInterval = 10 * time.Second
	// kubeletPause is the shortest time between two.
	kubeletPause = time.Second
	// kubeletTimeout bounds a question.
	kubeletTimeout = 10 * time.Second
	// maxPodList bounds an answer: a node has a few hundred pods, of some kilobytes each.
	maxPodList = 64 << 20
)

// Kubelet is a node's own list of its pods, which costs the API server nothing.
type Kubelet struct {
	url    string
	client *http.Client
	asked  chan struct{}
}

// NewKubelet returns the kubelet at the endpoint, such as https://node-1:10250. It is known by tlsConfig, which may be nil
// without TLS, and is shown the certificate that this has, or else the certificate or token by which the API server knows us.
func NewKubelet(endpoint string, tlsConfig *tls.Config, api *rest.Config) (*Kubelet, error) {
	if tlsConfig != nil && len(tlsConfig.Certificates) == 0 && tlsConfig.GetClientCertificate == nil {
		ours, err := rest.TLSConfigFor(api)
		if err != nil {
			return nil, fmt.Errorf("cannot read the certificate for the kubelet: %w", err)
		}
		if ours != nil {
			tlsConfig.Certificates, tlsConfig.GetClientCertificate = ours.Certificates, ours.GetClientCertificate
		}
	}
	var rt http.RoundTripper = &http.Transport{TLSClientConfig: tlsConfig, DialContext: api.Dial, IdleConnTimeout: 2 * kubeletInterval}
	if api.BearerToken != "" || api.BearerTokenFile != "" {
		var err error
		if rt, err = transport.NewBearerAuthWithRefreshRoundTripper(api.BearerToken, api.BearerTokenFile, rt); err != nil {
			return nil, fmt.Errorf("cannot read the token for the kubelet: %w", err)
		}
	}
	return &Kubelet{
		url:    strings.TrimSuffix(endpoint, "/") + "/pods",
		client: &http.Client{Transport: rt, Timeout: kubeletTimeout},
		asked:  make(chan struct{}, 1),
	}, nil
}

// Ask has the kubelet asked soon, as somebody wants to know a pod that is not known.
func (k *Kubelet) Ask() {
	select {
	case k.asked <- struct{}{}:
	default:
	}
}

// follow asks the kubelet until the context ends.
func (k *Kubelet) follow(ctx context.Context, w *Watcher) {
	defer k.client.CloseIdleConnections()
	synced := false
	for {
		w.onRestart("kubelet")
		pods, err := k.pods(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			w.lose("kubelet", time.Now(), fmt.Errorf("cannot ask the kubelet for pods: %w", err))
		default:
			w.cache.replacePods(pods)
			if !synced {
				synced = true
				w.cache.synced()
			}
			w.regain("kubelet")
		}
		if !pause(ctx, kubeletPause, nil) || !pause(ctx, kubeletInterval-kubeletPause, k.asked) {
			return
		}
	}
}

// pause waits, or until woken; it returns false when the context ends.
func pause(ctx context.Context, d time.Duration, woken <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-woken:
	case <-timer.C:
	}
	return true
}

func (k *Kubelet) pods(ctx context.Context) ([]*Pod, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, k.url, http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := k.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		why, _ := io.ReadAll(io.LimitReader(resp.Body, 200)) // what comes says more than nothing
		return nil, fmt.Errorf("%s: %s: %s", k.url, resp.Status, strings.TrimSpace(string(why)))
	}
	var list corev1.PodList
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxPodList)).Decode(&list); err != nil {
		return nil, fmt.Errorf("%s: %w", k.url, err)
	}
	pods := make([]*Pod, 0, len(list.Items))
	for i := range list.Items {
		pods = append(pods, podFrom(&list.Items[i]))
	}
	return pods, nil
}
