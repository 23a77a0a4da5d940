package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"syscall"

	"connectrpc.com/connect"

	"github.com/orb8/orb8/api/orb8/v1/orb8v1connect"
)

// call asks the collector one question.
func call[Req, Res any](ctx context.Context, a *app,
	method func(orb8v1connect.OrbitServiceClient, context.Context, *connect.Request[Req]) (*connect.Response[Res], error),
	req *Req,
) (*Res, error) {
	c, err := a.connect(ctx)
	if err != nil {
		return nil, interrupted(ctx, err)
	}
	reply, err := method(c, ctx, connect.NewRequest(req))
	if err != nil {
		return nil, interrupted(ctx, c.explain(err))
	}
	return reply.Msg, nil
}

// interrupted is err, unless it is the user's doing.
func interrupted(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return errors.New("interrupted")
	}
	return err
}

// hostOf takes HOST:PORT apart.
func hostOf(address string) (host string, err error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || host == "" {
		return "", errors.New("not HOST:PORT")
	}
	return host, nil
}

// explain turns an error of a call into one that says what the user can do.
func (c *connection) explain(err error) error {
	answer, isConnectErr := errors.AsType[*connect.Error](err)
	// A proxy or the server below the API says so without the API's own words.
	if isConnectErr && answer.Code() == connect.CodeUnauthenticated {
		return fmt.Errorf("the collector at %s wants to know who asks: %s; give it a token with --token-file", c.name, answer.Message())
	}
	if isConnectErr && connect.IsWireError(answer) {
		return fmt.Errorf("the collector at %s answers: %s (%s)", c.name, answer.Message(), answer.Code())
	}
	if token, ok := errors.AsType[*tokenError](err); ok {
		return fmt.Errorf("cannot read --token-file: %w", token.error)
	}
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return fmt.Errorf("cannot reach the collector at %s: no such host; name another with --server or --agent", c.name)
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("cannot reach the collector at %s: connection refused; is it running? "+
			"start it with `make run`, or name another with --server or --agent", c.name)
	}
	if dial, ok := errors.AsType[*net.OpError](err); ok && dial.Op == "dial" {
		return fmt.Errorf("cannot reach the collector at %s: %w; name another with --server or --agent", c.name, dial.Err)
	}
	if problem := c.explainTLS(err); problem != nil {
		return problem
	}
	if c.secure {
		// The refusal comes after the handshake, and may be overtaken by the end of the connection.
		return fmt.Errorf("no collector answers at %s, though something that speaks TLS listens there; "+
			"if it wants a certificate from its clients, --tls-cert and --tls-key give it a certificate (%w)", c.name, err)
	}
	return fmt.Errorf("no collector answers at %s, though something listens there; "+
		"if it speaks TLS, use --tls; if it is another program, name the collector with --server or --agent (%w)", c.name, err)
}

// explainTLS returns nil for errors that have nothing to do with TLS.
func (c *connection) explainTLS(err error) error {
	if bad, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return fmt.Errorf("cannot trust the collector at %s: %w; --tls-ca names the authority that signed its certificate, "+
			"--tls-server-name the host in it", c.name, bad.Err)
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok || errors.Is(err, http.ErrSchemeMismatch) {
		return fmt.Errorf("what listens at %s speaks no TLS; leave the --tls flags out", c.name)
	}
	if alert, ok := errors.AsType[*net.OpError](err); ok && alert.Op == "remote error" {
		return fmt.Errorf("the collector at %s refuses this client: %w; --tls-cert and --tls-key give it a certificate", c.name, alert.Err)
	}
	return nil
}
