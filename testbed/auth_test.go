//go:build linux

package testbed

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
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

	"github.com/orb8/orb8/internal/testutil"
	"github.com/orb8/orb8/testbed/internal/collector"
)

// guarded is a collector that answers only who has the token, or is one of the users, and that over TLS alone.
const guarded = `
receivers:
  otlp: {protocols: {grpc: {endpoint: "127.0.0.1:0"}}}
exporters:
  orb8_store:
extensions:
  orb8_storage:
  bearertokenauth:
    token: let-me-in
  basicauth/users:
    htpasswd:
      inline: "ops:secret"
  orb8_query:
    endpoint: ${env:ORB8_QUERY_ENDPOINT}
    tls: {cert_file: "${env:CERT}", key_file: "${env:KEY}"}
    auth: {authenticator: bearertokenauth}
  orb8_query/users:
    endpoint: ${env:USERS_ENDPOINT}
    tls: {cert_file: "${env:CERT}", key_file: "${env:KEY}"}
    auth: {authenticator: basicauth/users}
service:
  extensions: [orb8_storage, bearertokenauth, basicauth/users, orb8_query, orb8_query/users]
  telemetry: {metrics: {level: none}}
  pipelines:
    logs: {receivers: [otlp], exporters: [orb8_store]}
`

func TestQueryAPIBehindAToken(t *testing.T) {
	dir := t.TempDir()
	cert, key := selfSigned(t, dir)
	config, token, wrong := filepath.Join(dir, "config.yaml"), filepath.Join(dir, "token"), filepath.Join(dir, "wrong")
	for path, text := range map[string]string{config: guarded, token: "let-me-in\n", wrong: "guess\n"} {
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	}
	users := testutil.FreeAddresses(t, net.Listen, 1)[0]
	c := collector.Launch(t, collector.Options{Config: config, Env: []string{"CERT=" + cert, "KEY=" + key, "USERS_ENDPOINT=" + users}})
	cli := func(args ...string) (string, error) {
		out, err := exec.Command(collector.Binary(t, "orb8"), append([]string{"status", "--server", c.Query}, args...)...).CombinedOutput()
		return string(out), err
	}
	require.Eventually(t, func() bool {
		_, err := cli("--tls-ca", cert, "--token-file", token)
		return err == nil
	}, time.Minute, 50*time.Millisecond, "who has the token is answered")
	for name, args := range map[string][]string{
		"no token":             {"--tls-ca", cert},
		"wrong token":          {"--tls-ca", cert, "--token-file", wrong},
		"an unknown authority": {"--tls-ca", key},
	} {
		out, err := cli(args...)
		assert.Error(t, err, "%s: %s", name, out)
		assert.NotContains(t, out, "store embedded", name)
	}
	text, err := os.ReadFile(cert)
	require.NoError(t, err)
	pool := x509.NewCertPool()
	require.True(t, pool.AppendCertsFromPEM(text))
	browser := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true}}
	for password, want := range map[string]int{"secret": http.StatusOK, "guess": http.StatusUnauthorized} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+users+"/orb8.v1.OrbitService/GetStatus", strings.NewReader("{}"))
		require.NoError(t, err)
		req.Header.Set("Content-Type", "application/json")
		req.SetBasicAuth("ops", password)
		resp, err := browser.Do(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		assert.Equal(t, want, resp.StatusCode, password)
	}
	c.Stop()
}

// selfSigned writes a certificate of 127.0.0.1 that signs itself.
func selfSigned(t *testing.T, dir string) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	require.NoError(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	require.NoError(t, err)
	cert, key = filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.key")
	require.NoError(t, os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	require.NoError(t, os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600))
	return cert, key
}
