package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"syscall"
	"time"

	"connectrpc.com/connect"

	"github.com/orb8/orb8/api/orb8/v1/orb8v1connect"
)

const (
	dialTimeout = 5 * time.Second
	// A connection that is silent for pingAfter is pinged, and given up when no answer comes within pingTimeout: so a
	// stream notices a collector whose host went away.
	pingAfter   = 15 * time.Second
	pingTimeout = 10 * time.Second
)

// client returns a gRPC client of the collector at a.agent. It does not connect yet. The error is a usage error.
// The returned function closes the client's connections.
func (a *app) client() (orb8v1connect.OrbitServiceClient, func(), error) {
	if err := checkHostPort(a.agent); err != nil {
		return nil, nil, usagef("invalid --agent or ORB8_AGENT %q: use HOST:PORT, such as %s", a.agent, defaultAgent)
	}
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{
		// No Proxy: an agent is on this host or behind a port-forward, and its address is what the user typed.
		Protocols:   protocols,
		DialContext: (&net.Dialer{Timeout: dialTimeout}).DialContext,
		HTTP2:       &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout},
	}
	// The reply is as large as the user's --limit asks for, so that the client sets no limit of its own.
	client := orb8v1connect.NewOrbitServiceClient(&http.Client{Transport: transport}, "http://"+a.agent, connect.WithGRPC())
	return client, transport.CloseIdleConnections, nil
}

// call asks the collector one question.
func call[Req, Res any](ctx context.Context, a *app,
	method func(orb8v1connect.OrbitServiceClient, context.Context, *connect.Request[Req]) (*connect.Response[Res], error),
	req *Req,
) (*Res, error) {
	client, closeClient, err := a.client()
	if err != nil {
		return nil, err
	}
	defer closeClient()
	reply, err := method(client, ctx, connect.NewRequest(req))
	if ctx.Err() != nil {
		return nil, errors.New("interrupted")
	}
	if err != nil {
		return nil, a.explain(err)
	}
	return reply.Msg, nil
}

func checkHostPort(s string) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || host == "" {
		return errors.New("not HOST:PORT")
	}
	return nil
}

// explain turns an error of a call into one that says what the user can do.
func (a *app) explain(err error) error {
	answer, isConnectErr := errors.AsType[*connect.Error](err)
	if isConnectErr && connect.IsWireError(answer) {
		return fmt.Errorf("the collector at %s answers: %s (%s)", a.agent, answer.Message(), answer.Code())
	}
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return fmt.Errorf("cannot reach the collector at %s: no such host; name another with --agent", a.agent)
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("cannot reach the collector at %s: connection refused; is it running? "+
			"start it with `make run`, or name another with --agent", a.agent)
	}
	if dial, ok := errors.AsType[*net.OpError](err); ok && dial.Op == "dial" {
		return fmt.Errorf("cannot reach the collector at %s: %w; name another with --agent", a.agent, dial.Err)
	}
	return fmt.Errorf("no collector answers at %s, though something listens there; "+
		"if that is another program, name the collector with --agent (%w)", a.agent, err)
}
