package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"time"

	"connectrpc.com/connect"

	"github.com/orb8/orb8/api/orb8/v1/orb8v1connect"
)

const (
	dialTimeout = 5 * time.Second
	// patience is how long nothing is shown before the user is told what is waited for.
	patience = time.Second
	// A connection that is silent for pingAfter is pinged, and given up when no answer comes within pingTimeout: so a
	// stream notices a collector whose host went away.
	pingAfter   = 15 * time.Second
	pingTimeout = 10 * time.Second
	// defaultAgent is the collector of this host.
	defaultAgent = "127.0.0.1:9090"
	// nodePrefix is before the name of a node whose agent is meant.
	nodePrefix = "node/"
)

// target is which collector to ask.
type target struct {
	// server is the HOST:PORT of a gateway, agent that of a node's agent, or nodePrefix and the name of the node. Where both are empty, it
	// is the gateway of the cluster that kubectl asks, or else the collector of this host.
	server, agent string
	// flag is the one that named it.
	flag string
	kube kubeOptions
	tls  tlsOptions
	// tokenFile holds a bearer token.
	tokenFile string
}

// tlsOptions say whether to use TLS, and how. Paths are of PEM files.
type tlsOptions struct {
	on            bool
	ca, cert, key string
	serverName    string
	skipVerify    bool
}

// targetFromEnvironment is what the flags' defaults are.
func targetFromEnvironment() target {
	return target{
		server: os.Getenv("ORB8_SERVER"), agent: os.Getenv("ORB8_AGENT"), tokenFile: os.Getenv("ORB8_TOKEN_FILE"),
		kube: kubeOptions{namespace: os.Getenv("ORB8_NAMESPACE")},
		tls: tlsOptions{
			on: os.Getenv("ORB8_TLS") == "true", ca: os.Getenv("ORB8_TLS_CA"), cert: os.Getenv("ORB8_TLS_CERT"), key: os.Getenv("ORB8_TLS_KEY"),
			serverName: os.Getenv("ORB8_TLS_SERVER_NAME"),
		},
	}
}

// set is the setter of --server and --agent.
func (t *target) set(flag string, to *string) func(string) error {
	return func(s string) error {
		if t.flag != "" && t.flag != flag {
			return fmt.Errorf("--%s names one already; a question goes to one collector", t.flag)
		}
		t.flag, t.server, t.agent = flag, "", ""
		*to = s
		if s == "" {
			return errAddress
		}
		return nil
	}
}

var errAddress = fmt.Errorf("use HOST:PORT, such as %s", defaultAgent)

// connection is an open way to a collector.
type connection struct {
	orb8v1connect.OrbitServiceClient
	// name is what messages call the collector.
	name string
	// secure is true of TLS.
	secure bool
	close  func()
}

// connect returns the connection to the collector, the same one for all that a command asks. It may not be connected yet.
func (a *app) connect(ctx context.Context) (*connection, error) {
	a.connecting.Lock()
	defer a.connecting.Unlock()
	if a.connection != nil {
		return a.connection, nil
	}
	over := a.tellWaiting()
	c, err := a.target.open(ctx, a.notice)
	over()
	if err != nil {
		return nil, err
	}
	a.connection = c
	return c, nil
}

// tellWaiting tells a user at a terminal what is waited for, should it take longer than patience: only kubectl takes so long before there is
// a connection. The function that it returns ends that, and nothing is told after it.
func (a *app) tellWaiting() (over func()) {
	if width, _ := terminalSize(a.notices); width == 0 {
		return func() {}
	}
	told := make(chan struct{})
	timer := time.AfterFunc(patience, func() {
		defer close(told)
		a.notice("waiting for kubectl to reach the cluster, %v at most; --server and --agent name a collector that is reached without it", forwardTimeout)
	})
	return func() {
		if !timer.Stop() {
			<-told
		}
	}
}

// close ends the connection, if there is one.
func (a *app) close() {
	a.connecting.Lock()
	defer a.connecting.Unlock()
	if a.connection != nil {
		a.connection.close()
		a.connection = nil
	}
}

// open connects. notice is told what the user should know of the way taken.
func (t *target) open(ctx context.Context, notice func(format string, args ...any)) (*connection, error) {
	node, isNode := strings.CutPrefix(t.agent, nodePrefix)
	switch {
	case t.server != "":
		return t.dial("--server or ORB8_SERVER", t.server)
	case isNode:
		return t.forwarded(ctx, func(ctx context.Context) (string, error) { return t.kube.agentOf(ctx, node) })
	case t.agent != "":
		return t.dial("--agent or ORB8_AGENT", t.agent)
	case !t.kube.there():
		return t.dial("", defaultAgent)
	}
	c, err := t.forwarded(ctx, func(context.Context) (string, error) { return gatewayName, nil })
	if err != nil && !t.kube.named() && ctx.Err() == nil {
		notice("no orb8 gateway by kubectl (%v): asking the collector of this host; --server and --agent name one", err)
		return t.dial("", defaultAgent)
	}
	return c, err
}

// forwarded connects to what find finds in the cluster.
func (t *target) forwarded(ctx context.Context, find func(context.Context) (string, error)) (*connection, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, forwardTimeout, fmt.Errorf("kubectl took longer than %v", forwardTimeout))
	defer cancel()
	name, err := find(ctx)
	if err != nil {
		return nil, err
	}
	forward, err := t.kube.forward(ctx, name)
	if err != nil {
		return nil, err
	}
	c, err := t.dial("", forward.address)
	if err != nil {
		forward.close()
		return nil, err
	}
	closeConnection := c.close
	c.name = name + " by kubectl"
	c.close = func() {
		closeConnection()
		forward.close()
	}
	return c, nil
}

// dial makes a connection to HOST:PORT, which origin names for a usage error. It does not connect yet.
func (t *target) dial(origin, address string) (*connection, error) {
	host, err := hostOf(address)
	if err != nil {
		return nil, usagef("invalid %s %q: %w", origin, address, errAddress)
	}
	protocols := new(http.Protocols)
	transport := &http.Transport{
		// No Proxy: a collector is on this host, in this network or behind a port-forward, and its address is what the user typed.
		Protocols:           protocols,
		DialContext:         (&net.Dialer{Timeout: dialTimeout}).DialContext,
		TLSHandshakeTimeout: dialTimeout,
		HTTP2:               &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout},
	}
	url := "http://" + address
	if t.tls.isOn() {
		protocols.SetHTTP2(true)
		url = "https://" + address
		if transport.TLSClientConfig, err = t.tls.config(); err != nil {
			return nil, usageError{err}
		}
	} else {
		protocols.SetUnencryptedHTTP2(true)
	}
	client := &http.Client{Transport: transport}
	if t.tokenFile != "" {
		if !t.tls.isOn() && !isLoopback(host) {
			return nil, usagef("a token must not go to %s in plain text; use --tls", address)
		}
		client.Transport = &bearer{file: t.tokenFile, next: transport}
	}
	return &connection{
		// The reply is as large as the user's --limit asks for, so that the client sets no limit of its own.
		OrbitServiceClient: orb8v1connect.NewOrbitServiceClient(client, url, connect.WithGRPC()),
		name:               address,
		secure:             t.tls.isOn(),
		close:              transport.CloseIdleConnections,
	}, nil
}

// isLoopback is true of addresses of this host, which nobody else can read along.
func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

func (o *tlsOptions) isOn() bool {
	return o.on || o.skipVerify || o.ca != "" || o.cert != "" || o.key != "" || o.serverName != ""
}

func (o *tlsOptions) config() (*tls.Config, error) {
	config := &tls.Config{ServerName: o.serverName, InsecureSkipVerify: o.skipVerify}
	if o.ca != "" {
		pem, err := os.ReadFile(o.ca)
		if err != nil {
			return nil, fmt.Errorf("cannot read --tls-ca: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("--tls-ca %s has no certificate in PEM", o.ca)
		}
	}
	if (o.cert == "") != (o.key == "") {
		return nil, errors.New("--tls-cert and --tls-key go together: a certificate and its key")
	}
	if o.cert != "" {
		pair, err := tls.LoadX509KeyPair(o.cert, o.key)
		if err != nil {
			return nil, fmt.Errorf("cannot use --tls-cert and --tls-key: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// bearer adds a token to requests. It reads the file each time, as tokens are renewed while a command runs.
type bearer struct {
	file string
	next http.RoundTripper
}

func (b *bearer) RoundTrip(req *http.Request) (*http.Response, error) {
	token, err := os.ReadFile(b.file)
	if err != nil {
		return nil, &tokenError{err}
	}
	req = req.Clone(req.Context())
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	return b.next.RoundTrip(req)
}

// tokenError is why no token was sent.
type tokenError struct{ error }
