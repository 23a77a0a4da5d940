//go:build linux

package gateway

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/plog/plogotlp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orb8/orb8/testbed/backends"
	"github.com/orb8/orb8/testbed/internal/collector"
)

const (
	// inVictoriaLogs and inLoki keep the records of gateway.yaml in a server, as docs/store.md says.
	inVictoriaLogs = `
extensions:
  basicauth/logs: {client_auth: {username: %s, password: "%s"}}
  orb8_storage:
    embedded: null
    victorialogs: {endpoint: "%s", tls: {ca_file: "%s"}, auth: {authenticator: basicauth/logs}}
service: {extensions: [health_check, file_storage, basicauth/logs, orb8_storage, orb8_query]}
`
	inLoki = `
extensions:
  orb8_storage:
    embedded: null
    loki: {endpoint: "%s", headers: {X-Scope-OrgID: orb8}, tls: {ca_file: "%s", cert_file: "%s", key_file: "%s"}}
`
)

// wrong is what the gateway is not to be told, and what it says then.
type wrong struct{ overlay, says string }

// What gateway.yaml answers is the same from an engine that asks who is there and speaks TLS alone as from the embedded store. Where
// it does not get there, it says which key to look at, and acknowledges nothing.
func TestEngines(t *testing.T) {
	const nodes, connections, interval = 5, 20, 5 * time.Second
	kubeconfig := "KUBECONFIG=" + serveNames(t, nodes)
	ended := time.Now().Add(-time.Second)
	gateway := func(t *testing.T, overlay string) (*process, []*agent) {
		otlp, env := ports(t)
		g := launch(t, shipped("gateway"), gatewayOverlay+overlay, otlp, append(env, kubeconfig, "ORB8_STATE_DIR="+t.TempDir())...)
		agents := start(t, nodes, otlp)
		for _, began := range []time.Time{ended.Add(-2 * interval), ended.Add(-interval)} {
			each(agents, func(a *agent) { assert.NoError(t, a.report(t.Context(), connections, began, began.Add(interval))) })
		}
		return g, agents
	}
	embedded, agents := gateway(t, "")
	require.Equal(t, reported(agents), stored(t, embedded))
	pod := pod(7)
	since := []string{"--since", ended.Add(-time.Minute).Format(time.RFC3339)}
	questions := [][]string{
		{"flows", "--all"}, {"flows", "--all", "--pod", pod.String()}, {"flows", "--all", "--from", pod.namespace() + "/", "--not", "--pod", pod.String()},
		{"flows", "--all", "--label", "app=" + pod.workload(), "--direction", "egress"},
		{"aggregate", "--by", "source.pod,destination.pod", "--sum", "bytes,packets"},
		{"aggregate", "--by", "source.workload", "--bucket", "5s", "--ip", pod.address().String()},
		{"syscalls", "--all"}, {"syscalls", "--all", "--pod", pod.String(), "--syscall", "read"}, {"dns", "--all"},
	}
	ask := func(g *process, question []string) []string {
		stdout, stderr, code := g.CLI(slices.Concat(question, since, []string{"-o", "jsonl"})...)
		require.Zero(t, code, "%s: %s", question, stderr)
		rows := strings.Split(strings.TrimSpace(stdout), "\n")
		slices.Sort(rows) // those of one instant are in any order
		return rows
	}

	for name, engine := range map[string]func(t *testing.T) (overlay, backend string, all []wrong){
		"VictoriaLogs": func(t *testing.T) (string, string, []wrong) {
			s := backends.GuardedVictoriaLogs(t)
			return fmt.Sprintf(inVictoriaLogs, s.User, s.Password, s.URL, s.CAFile), "victorialogs", []wrong{
				{fmt.Sprintf(inVictoriaLogs, s.User, "a guess", s.URL, s.CAFile), s.URL + "%s answers 401 Unauthorized; check victorialogs::auth or headers"},
				{fmt.Sprintf(inVictoriaLogs, s.User, s.Password, s.URL, ""), "%s certificate signed by unknown authority; check victorialogs::tls::ca_file"},
				{fmt.Sprintf(inVictoriaLogs, s.User, s.Password, plain(s.URL), ""), "%s; check victorialogs::endpoint: the server may speak https://"},
			}
		},
		"Loki": func(t *testing.T) (string, string, []wrong) {
			s := backends.GuardedLoki(t)
			return fmt.Sprintf(inLoki, s.URL, s.CAFile, s.CertFile, s.KeyFile), "loki", []wrong{
				{fmt.Sprintf(inLoki, s.URL, "", s.CertFile, s.KeyFile), "%s certificate signed by unknown authority; check loki::tls::ca_file"},
				{fmt.Sprintf(inLoki, plain(s.URL), "", "", ""), "%s answers 400 Bad Request: Client sent an HTTP request to an HTTPS server.; check loki::endpoint"},
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			overlay, backend, all := engine(t)
			g, agents := gateway(t, overlay)
			for _, question := range questions {
				want := ask(embedded, question)
				assert.NotEmpty(t, want[0], "%s", question)
				var got []string
				collector.Await(t, "the same answer", func() bool { // VictoriaLogs shows what it took a second later
					got = ask(g, question)
					return slices.Equal(want, got)
				}, func() any { return fmt.Sprintf("%s: want\n%s\ngot\n%s", question, want, got) })
			}
			assert.Equal(t, reported(agents), stored(t, g), "by the API")
			stdout, stderr, code := g.CLI("status")
			require.Zero(t, code, stderr)
			assert.Contains(t, stdout, "records      kept by "+backend)
			assert.Equal(t, nodes, strings.Count(stdout, "\nnode "))

			for _, w := range all {
				refused(t, w, kubeconfig)
			}
		})
	}
}

func plain(url string) string { return strings.Replace(url, "https:", "http:", 1) }

// refused starts a gateway that does not get to its engine.
func refused(t *testing.T, w wrong, kubeconfig string) {
	t.Helper()
	otlp, env := ports(t)
	g := collector.Launch(t, collector.Options{Config: shipped("gateway"), Overlay: gatewayOverlay + w.overlay, Env: append(env, kubeconfig)})
	before, after, _ := strings.Cut(w.says, "%s")
	var stderr string
	collector.Await(t, "a refusal that says why", func() bool {
		_, stderr, _ = g.CLI("flows")
		return strings.Contains(stderr, after+" (")
	}, func() any { return stderr + g.Log() })
	assert.Contains(t, stderr, "cannot read from ")
	assert.Contains(t, stderr, before)
	assert.Equal(t, 1, strings.Count(stderr, "\n"), stderr)

	a := start(t, 1, otlp)[0]
	_, err := a.client.Export(t.Context(), plogotlp.NewExportRequestFromLogs(a.interval(0, 1, time.Now().Add(-time.Second), time.Now())))
	assert.ErrorContains(t, err, "cannot write to ")
	assert.Equal(t, codes.Unavailable, status.Code(err), "the agent keeps it")
	collector.Await(t, "a line in the log", func() bool { return strings.Contains(g.Log(), "The store takes no records until ") }, func() any { return g.Log() })
	g.Kill()
}
