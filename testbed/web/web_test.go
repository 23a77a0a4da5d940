//go:build linux

// Package web tests the web page: in a real browser, of the real collector, over records that came in by OTLP or from the kernel.
package web

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/orb8/orb8/internal/testutil"
	"github.com/orb8/orb8/testbed/internal/collector"
)

// screenshotsEnv names the folder that the test puts pictures of the page into; without it there are none.
const screenshotsEnv = "ORB8_WEB_SCREENSHOTS"

// config is a gateway without Kubernetes.
const config = `
receivers:
  otlp:
    protocols:
      http:
        endpoint: ${env:ORB8_OTLP_HTTP_ENDPOINT}
        max_request_body_size: 67108864
exporters:
  orb8_store: {}
extensions:
  orb8_storage:
    embedded: {}
  orb8_query:
    endpoint: ${env:ORB8_QUERY_ENDPOINT}
service:
  extensions: [orb8_storage, orb8_query]
  telemetry:
    metrics:
      level: none
  pipelines:
    logs:
      receivers: [otlp]
      exporters: [orb8_store]
    metrics:
      receivers: [otlp]
      exporters: [orb8_store]
`

// gateway starts a collector and writes into its store. It returns where the page is.
func gateway(t *testing.T, records *batch) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "gateway.yaml")
	require.NoError(t, os.WriteFile(file, []byte(config), 0o600))
	otlp := testutil.FreeAddress(t)
	c := collector.Launch(t, collector.Options{Config: file, Env: []string{"ORB8_OTLP_HTTP_ENDPOINT=" + otlp}})
	page := "http://" + c.Query + "/"
	// The collector starts its receivers after its extensions.
	for _, url := range []string{page, "http://" + otlp + "/v1/logs"} {
		require.Eventually(t, func() bool {
			resp, err := http.Get(url)
			if err != nil {
				return false
			}
			return assert.NoError(t, resp.Body.Close())
		}, 30*time.Second, 20*time.Millisecond, "%s does not answer; log:\n%s", url, c.Log())
	}
	if records == nil {
		return page
	}
	logs, err := (&plog.ProtoMarshaler{}).MarshalLogs(records.logs)
	require.NoError(t, err)
	metrics, err := (&pmetric.ProtoMarshaler{}).MarshalMetrics(records.metrics)
	require.NoError(t, err)
	post(t, "http://"+otlp+"/v1/logs", logs)
	post(t, "http://"+otlp+"/v1/metrics", metrics)
	return page
}

func post(t *testing.T, url string, data []byte) {
	t.Helper()
	resp, err := http.Post(url, "application/x-protobuf", bytes.NewReader(data))
	require.NoError(t, err)
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, resp.StatusCode, "%s", answer)
}

// browse runs a scenario of web/test/browse.mjs, which ends with 0 if all of it held and the browser found no errors.
func browse(t *testing.T, scenario, page string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	script := exec.CommandContext(ctx, "node", filepath.Join(collector.Root(), "web", "test", "browse.mjs"), scenario, page)
	script.Env = append(os.Environ(), "CHROMIUM="+chromium(), "SCREENSHOTS="+os.Getenv(screenshotsEnv))
	// Node leaves the browser's pipes to it.
	script.WaitDelay = 10 * time.Second
	out, err := script.CombinedOutput()
	require.NoError(t, err, "%s", out)
	if testing.Verbose() {
		t.Logf("%s", out)
	}
}

func chromium() string {
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

func requireBrowser(t *testing.T) {
	t.Helper()
	testutil.Require(t, "browser", chromium() != "", "chromium is not installed")
	_, err := exec.LookPath("node")
	testutil.Require(t, "browser", err == nil, "node (Debian package nodejs) is not installed")
	_, err = os.Stat(filepath.Join(collector.Root(), "web", "node_modules", "playwright-core"))
	testutil.Require(t, "browser", err == nil, "what the page's tests need is not installed; run `make web-deps`")
}

func TestPage(t *testing.T) {
	requireBrowser(t)
	now := time.Now()
	for scenario, records := range map[string]*batch{"empty": nil, "shop": shop(now), "units": units(now), "crowd": crowd(now)} {
		t.Run(scenario, func(t *testing.T) { browse(t, scenario, gateway(t, records)) })
	}
}

// TestPageOfAHost is without Kubernetes: what the kernel of this machine counts, of traffic that the test makes.
func TestPageOfAHost(t *testing.T) {
	requireBrowser(t)
	testutil.Require(t, "bpf", os.Geteuid() == 0, "starting the collector needs root")
	c := collector.Start(t, collector.Options{Set: map[string]string{"receivers.ebpf_network.interval": "500ms"}})
	server, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	defer server.Close()
	go func() {
		_ = http.Serve(server, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, strings.Repeat("x", 100_000)) }))
	}()
	for range 20 {
		resp, err := http.Get("http://" + server.Addr().String())
		require.NoError(t, err)
		_, err = io.Copy(io.Discard, resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
	}
	_, port, err := net.SplitHostPort(server.Addr().String())
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		out, _, _ := c.CLI("flows", "--port", port, "-o", "jsonl")
		return out != ""
	}, 30*time.Second, 100*time.Millisecond)
	browse(t, "host", "http://"+c.Query+"/flows?port="+port)
}
