//go:build linux

package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/orb8/orb8/internal/testutil"
)

const (
	serviceRange = "10.96.0.0/16"
	// apiServiceIP is the first address of serviceRange, the API server's own.
	apiServiceIP = "10.96.0.1"
	// readyTimeout is how long a part of a cluster may take until it is ready.
	readyTimeout = 90 * time.Second
)

// ControlPlaneOptions choose what runs beside etcd and the API server.
type ControlPlaneOptions struct {
	// Controllers starts kube-controller-manager and kube-scheduler too. Without them there are no service accounts but
	// those that a test makes, pods need none, and nobody gives pods to nodes or makes them of Deployments.
	Controllers bool
}

// ControlPlane is etcd and a Kubernetes API server, of a version of its own and with nothing in it.
type ControlPlane struct {
	dir     string
	cache   cache
	pki     pki
	daemons daemons
	options ControlPlaneOptions
	// etcd, etcdPeer and server are addresses (host:port).
	etcd, etcdPeer, server string
	// node is where everything runs; nil is where the test does.
	node *node
	// audits is whether there is a policy of what the API server writes down of requests.
	audits bool
}

// StartControlPlane starts a control plane on free ports of loopback. It needs no root. The test's end stops it, however
// that comes about. What it needs must be built already: that takes longer than a test may.
func StartControlPlane(t testing.TB, o ControlPlaneOptions) *ControlPlane {
	t.Helper()
	c, err := openCache()
	require.NoError(t, err)
	programs := []string{"kube-apiserver", "kubectl"}
	if o.Controllers {
		programs = append(programs, "kube-controller-manager", "kube-scheduler")
	}
	err = c.missing(programs...)
	testutil.Require(t, "k8s", err == nil, fmt.Sprint(err))
	addresses, dir := testutil.FreeAddresses(t, net.Listen, 3), t.TempDir()
	p := &ControlPlane{
		dir: dir, cache: c, pki: pki(filepath.Join(dir, "pki")), daemons: daemons(filepath.Join(dir, "daemons")), options: o,
		etcd: addresses[0], etcdPeer: addresses[1], server: addresses[2],
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(p.daemons.logTail("etcd") + "\n" + p.daemons.logTail("kube-apiserver"))
		}
		require.NoError(t, p.stop())
	})
	require.NoError(t, p.start(t.Context()))
	return p
}

// Kubeconfig returns the path of the administrator's kubeconfig file.
func (p *ControlPlane) Kubeconfig() string { return p.pki.kubeconfig("admin") }

// URL returns where the API server answers.
func (p *ControlPlane) URL() string { return "https://" + p.server }

// RESTConfig returns the administrator's client configuration, without a limit of its own on requests.
func (p *ControlPlane) RESTConfig() (*rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", p.Kubeconfig())
	if err != nil {
		return nil, err
	}
	config.QPS = -1
	if p.node != nil {
		config.Dial = p.node.dial
	}
	return config, nil
}

// Client returns a client that may do everything.
func (p *ControlPlane) Client() (kubernetes.Interface, error) {
	config, err := p.RESTConfig()
	if err != nil {
		return nil, err
	}
	return kubernetes.NewForConfig(config)
}

// KubectlPath returns the path of kubectl, for programs that look for one.
func (p *ControlPlane) KubectlPath() (string, error) {
	return p.cache.program(kubernetesModule, "kubectl")
}

// Kubectl returns a command line of kubectl as the administrator, to be run.
func (p *ControlPlane) Kubectl(ctx context.Context, args ...string) (*exec.Cmd, error) {
	kubectl, err := p.cache.program(kubernetesModule, "kubectl")
	if err != nil {
		return nil, err
	}
	args = append([]string{"--kubeconfig=" + p.Kubeconfig()}, args...)
	if p.node != nil {
		return p.node.networkCommand(ctx, kubectl, args...)
	}
	return exec.CommandContext(ctx, kubectl, args...), nil
}

// Apply makes the objects of manifests in YAML, or changes them.
func (p *ControlPlane) Apply(ctx context.Context, manifests string) error {
	cmd, err := p.Kubectl(ctx, "apply", "--filename=-")
	if err != nil {
		return err
	}
	cmd.Stdin = strings.NewReader(manifests)
	_, err = output(cmd)
	return err
}

// start starts all daemons and waits until the API server is ready.
func (p *ControlPlane) start(ctx context.Context) error {
	host, _, err := net.SplitHostPort(p.server)
	if err != nil {
		return err
	}
	if err := p.pki.write(p.URL(), net.ParseIP(host)); err != nil {
		return err
	}
	if err := p.startEtcd(ctx); err != nil {
		return err
	}
	if err := p.StartAPIServer(ctx); err != nil {
		return err
	}
	if !p.options.Controllers {
		return nil
	}
	return errors.Join(p.startControllers(ctx), p.startScheduler(ctx))
}

// stop stops all daemons, those first that would go on about the others.
func (p *ControlPlane) stop() error {
	var errs []error
	for _, name := range []string{"kwok", "kube-scheduler", "kube-controller-manager", "kube-apiserver", "etcd"} {
		errs = append(errs, p.daemons.stop(name))
	}
	return errors.Join(errs...)
}

// startEtcd starts etcd and waits until it is ready: the API server waits 20 seconds for it, and ends.
func (p *ControlPlane) startEtcd(ctx context.Context) error {
	root, err := p.cache.debianRoot()
	if err != nil {
		return err
	}
	client, peer := "http://"+p.etcd, "http://"+p.etcdPeer
	err = p.startDaemon(ctx, "etcd", filepath.Join(root, "usr/bin/etcd"),
		"--data-dir="+filepath.Join(p.dir, "etcd"),
		"--listen-client-urls="+client, "--advertise-client-urls="+client,
		"--listen-peer-urls="+peer, "--initial-advertise-peer-urls="+peer, "--initial-cluster=default="+peer,
		// Nothing must outlive a power failure, and 50,000 pods take more than the default of 2 GiB.
		"--unsafe-no-fsync", "--quota-backend-bytes="+strconv.Itoa(8<<30), "--log-level=warn")
	if err != nil {
		return err
	}
	var transport http.Transport
	if p.node != nil {
		transport.DialContext = p.node.dial
	}
	defer transport.CloseIdleConnections()
	return p.await(ctx, "etcd", func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, client+"/health", nil)
		if err != nil {
			return err
		}
		response, err := transport.RoundTrip(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("%s answers %s", request.URL, response.Status)
		}
		return nil
	})
}

// StartAPIServer starts the API server and waits until it is ready.
func (p *ControlPlane) StartAPIServer(ctx context.Context) error {
	host, port, err := net.SplitHostPort(p.server)
	if err != nil {
		return err
	}
	args := []string{
		"--etcd-servers=http://" + p.etcd, "--bind-address=" + host, "--secure-port=" + port,
		"--service-cluster-ip-range=" + serviceRange,
		"--tls-cert-file=" + p.pki.path("apiserver.crt"), "--tls-private-key-file=" + p.pki.path("apiserver.key"),
		"--client-ca-file=" + p.pki.path("ca.crt"), "--token-auth-file=" + p.pki.path("tokens.csv"),
		"--authorization-mode=Node,RBAC", "--allow-privileged=true",
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + p.pki.path("sa.pub"), "--service-account-signing-key-file=" + p.pki.path("sa.key"),
		"--kubelet-client-certificate=" + p.pki.path("apiserver-kubelet-client.crt"),
		"--kubelet-client-key=" + p.pki.path("apiserver-kubelet-client.key"),
		"--kubelet-certificate-authority=" + p.pki.path("ca.crt"), "--kubelet-preferred-address-types=InternalIP",
		"--profiling=false", "--max-requests-inflight=2000", "--max-mutating-requests-inflight=1000",
		"--cert-dir=" + filepath.Join(p.dir, "apiserver"),
	}
	if p.node != nil {
		args = append(args, "--advertise-address="+host, "--enable-admission-plugins=NodeRestriction")
	} else {
		// It listens on loopback, which it refuses to advertise: nobody is told of it.
		args = append(args, "--advertise-address=192.0.2.1", "--endpoint-reconciler-type=none")
	}
	if !p.options.Controllers {
		args = append(args, "--disable-admission-plugins=ServiceAccount")
	}
	if p.audits {
		args = append(args, "--audit-policy-file="+filepath.Join(p.dir, auditPolicy), "--audit-log-path="+filepath.Join(p.dir, auditLog))
	}
	if err := p.startKubernetes(ctx, "kube-apiserver", args...); err != nil {
		return err
	}
	return p.await(ctx, "kube-apiserver", func(ctx context.Context) error {
		client, err := p.Client()
		if err != nil {
			return err
		}
		_, err = client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
		return err
	})
}

// StopAPIServer stops the API server and returns when it is gone. What is in etcd stays.
func (p *ControlPlane) StopAPIServer() error { return p.daemons.stop("kube-apiserver") }

func (p *ControlPlane) startControllers(ctx context.Context) error {
	config := p.pki.kubeconfig("kube-controller-manager")
	return p.startKubernetes(ctx, "kube-controller-manager",
		"--kubeconfig="+config, "--authentication-kubeconfig="+config, "--authorization-kubeconfig="+config,
		"--service-account-private-key-file="+p.pki.path("sa.key"), "--root-ca-file="+p.pki.path("ca.crt"),
		"--cluster-signing-cert-file="+p.pki.path("ca.crt"), "--cluster-signing-key-file="+p.pki.path("ca.key"),
		"--use-service-account-credentials=true", "--kube-api-qps=1000", "--kube-api-burst=2000",
		"--leader-elect=false", "--secure-port=0")
}

func (p *ControlPlane) startScheduler(ctx context.Context) error {
	config := p.pki.kubeconfig("kube-scheduler")
	return p.startKubernetes(ctx, "kube-scheduler",
		"--kubeconfig="+config, "--authentication-kubeconfig="+config, "--authorization-kubeconfig="+config,
		"--kube-api-qps=1000", "--kube-api-burst=2000", "--leader-elect=false", "--secure-port=0")
}

// startKubernetes starts one of Kubernetes' own daemons.
func (p *ControlPlane) startKubernetes(ctx context.Context, name string, args ...string) error {
	path, err := p.cache.program(kubernetesModule, name)
	if err != nil {
		return err
	}
	return p.startDaemon(ctx, name, path, args...)
}

func (p *ControlPlane) startDaemon(ctx context.Context, name, path string, args ...string) error {
	if p.daemons.running(name) {
		return fmt.Errorf("cannot start %s: it runs already", name)
	}
	// It must outlive what starts it: the context of a test ends before its cleanup.
	cmd, err := p.command(context.WithoutCancel(ctx), path, args...)
	if err != nil {
		return err
	}
	cmd.SysProcAttr.Setsid = true // or Ctrl-C in a terminal ends the daemons of a cluster that stays
	return p.daemons.start(name, cmd)
}

// command returns a command line where the control plane runs.
func (p *ControlPlane) command(ctx context.Context, path string, args ...string) (*exec.Cmd, error) {
	if p.node != nil {
		return p.node.command(ctx, path, args...)
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // nothing outlives a test that was killed
	return cmd, nil
}

// await waits until ready returns nil, and gives up when the daemon has ended.
func (p *ControlPlane) await(ctx context.Context, daemon string, ready func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		if !p.daemons.running(daemon) {
			return fmt.Errorf("%s has ended\n%s", daemon, p.daemons.logTail(daemon))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready after %s: %w\n%s", daemon, readyTimeout, err, p.daemons.logTail(daemon))
		case <-time.After(50 * time.Millisecond):
		}
	}
}
