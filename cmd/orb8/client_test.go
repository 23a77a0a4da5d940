package main

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var errShort = errors.New(`containers: "ab" is too short`)

// TestNoCollector covers what can be at an address instead of a collector. Each is one line with the way out.
func TestNoCollector(t *testing.T) {
	listen := func(t *testing.T) net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		t.Cleanup(func() { l.Close() })
		return l
	}
	tests := []struct {
		name  string
		agent func(*testing.T) string
		says  string
	}{
		{
			"nothing",
			func(t *testing.T) string {
				l := listen(t)
				l.Close()
				return l.Addr().String()
			},
			": connection refused; is it running? start it with `make run`, or name another with --server or --agent\n",
		},
		{
			"no such host",
			func(*testing.T) string { return "orb8.invalid:9090" },
			"cannot reach the collector at orb8.invalid:9090: no such host; name another with --server or --agent\n",
		},
		{
			"an HTTP/1 server",
			func(t *testing.T) string {
				server := httptest.NewServer(http.NotFoundHandler())
				t.Cleanup(server.Close)
				return server.Listener.Addr().String()
			},
			"though something listens there; if it speaks TLS, use --tls",
		},
		{
			"an HTTP/2 server",
			func(t *testing.T) string {
				server := httptest.NewUnstartedServer(http.NotFoundHandler())
				server.Config.Protocols = new(http.Protocols)
				server.Config.Protocols.SetUnencryptedHTTP2(true)
				server.Start()
				t.Cleanup(server.Close)
				return server.Listener.Addr().String()
			},
			"though something listens there; if it speaks TLS, use --tls",
		},
		{
			"a server that hangs up",
			func(t *testing.T) string {
				l := listen(t)
				go func() {
					for conn, err := l.Accept(); err == nil; conn, err = l.Accept() {
						conn.Close()
					}
				}()
				return l.Addr().String()
			},
			"no collector answers at 127.0.0.1:",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			agent := tt.agent(t)
			for _, args := range [][]string{{"flows"}, {"status"}, {"flows", "--follow"}, {"trace", "network"}} {
				got := orb8(t, agent, args...)
				assert.Equal(t, exitFailed, got.code, args)
				assert.Empty(t, got.stdout, args)
				assert.Contains(t, got.stderr, tt.says, args)
				assert.Contains(t, got.stderr, agent, args)
			}
		})
	}
}

func TestAgentAddress(t *testing.T) {
	for _, agent := range []string{"", "localhost", ":9090", "localhost:", "localhost:0", "localhost:http", "localhost:65536", "::1:9090:x", "http://localhost:9090"} {
		t.Run(agent, func(t *testing.T) {
			for _, args := range [][]string{{"flows", "--agent", agent}, {"trace", "network", "--agent", agent}} {
				got := orb8(t, defaultAgent, args...)
				assert.Equal(t, exitUsage, got.code)
				if agent != "" {
					assert.Contains(t, got.stderr, "invalid --agent or ORB8_AGENT")
				}
				assert.Contains(t, got.stderr, "use HOST:PORT, such as 127.0.0.1:9090")
			}
		})
	}
	for _, agent := range []string{"localhost:1", "10.0.0.1:65535", "[::1]:9090"} {
		_, err := hostOf(agent)
		assert.NoError(t, err, agent)
	}
}

// TestAgentFlag holds that --agent wins over the environment, which run gets as its app's agent.
func TestAgentFlag(t *testing.T) {
	collector := &fakeCollector{flows: cannedReply()}
	got := orb8(t, "127.0.0.1:1", "flows", "--agent", collector.serve(t))
	assert.Zero(t, got.code, got.stderr)
}

func TestInterruptedCall(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var stdout, stderr bytes.Buffer
	agent := (&fakeCollector{flows: cannedReply()}).serve(t)
	assert.Equal(t, exitFailed, run(ctx, &app{target: target{agent: agent}, now: testNow}, []string{"flows"}, &stdout, &stderr))
	assert.Equal(t, "orb8: interrupted\n", stderr.String())
	assert.Empty(t, stdout.String())
}
