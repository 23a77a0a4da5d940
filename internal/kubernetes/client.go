package kubernetes

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// AuthType is how to find the API server and to identify to it. The names are those of the Collector's Kubernetes components.
type AuthType string

const (
	// AuthServiceAccount uses what Kubernetes puts into every pod.
	AuthServiceAccount AuthType = "serviceAccount"
	// AuthKubeConfig uses what kubectl uses: $KUBECONFIG, or else ~/.kube/config.
	AuthKubeConfig AuthType = "kubeConfig"
	// AuthNone uses the address that Kubernetes puts into every pod, and no identity.
	AuthNone AuthType = "none"
)

// RESTConfig returns how to reach the API server. Context names one of the kubeconfig's; empty is its current one.
func RESTConfig(auth AuthType, context string) (*rest.Config, error) {
	var cfg *rest.Config
	var err error
	switch auth {
	case AuthServiceAccount:
		if cfg, err = rest.InClusterConfig(); err != nil {
			return nil, fmt.Errorf("auth_type %s: %w; outside of a pod use %s", auth, err, AuthKubeConfig)
		}
	case AuthKubeConfig:
		rules := clientcmd.NewDefaultClientConfigLoadingRules()
		overrides := &clientcmd.ConfigOverrides{CurrentContext: context}
		if cfg, err = clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, overrides).ClientConfig(); err != nil {
			return nil, fmt.Errorf("auth_type %s: %w", auth, err)
		}
	case AuthNone:
		host, port := os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT")
		if host == "" || port == "" {
			return nil, fmt.Errorf("auth_type %s: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set, as they are in a pod", auth)
		}
		cfg = &rest.Config{Host: "https://" + net.JoinHostPort(host, port), TLSClientConfig: rest.TLSClientConfig{Insecure: true}}
	default:
		return nil, fmt.Errorf("auth_type: %q is not known; use %s, %s or %s", auth, AuthServiceAccount, AuthKubeConfig, AuthNone)
	}
	// Half the work of JSON, for the server too.
	cfg.ContentType = "application/vnd.kubernetes.protobuf"
	cfg.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	cfg.UserAgent = "orb8"
	// The API is inside of the cluster, proxies of the environment lead out of it.
	cfg.Proxy = func(*http.Request) (*url.URL, error) { return nil, nil }
	return cfg, nil
}
