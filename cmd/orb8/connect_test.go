package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/orb8/orb8/api/orb8/v1/orb8v1connect"
)

// secureCollector serves by TLS, and asks for a certificate or a token where the test does.
type secureCollector struct {
	address, ca string
	token       string
}

func discardLog() *log.Logger { return log.New(io.Discard, "", 0) }

func serveTLS(t *testing.T, clients *x509.CertPool) *secureCollector {
	t.Helper()
	s := &secureCollector{}
	mux := http.NewServeMux()
	mux.Handle(orb8v1connect.NewOrbitServiceHandler(&fakeCollector{flows: cannedReply(), status: cannedStatus()}))
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.token != "" && r.Header.Get("Authorization") != "Bearer "+s.token {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		mux.ServeHTTP(w, r)
	}))
	server.EnableHTTP2 = true
	server.Config.ErrorLog = discardLog()
	if clients != nil {
		server.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients}
	}
	server.StartTLS()
	t.Cleanup(server.Close)
	s.address = server.Listener.Addr().String()
	s.ca = writePEM(t, "CERTIFICATE", server.Certificate().Raw)
	return s
}

func writePEM(t *testing.T, kind string, der []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), strings.ReplaceAll(kind, " ", "-")+".pem")
	require.NoError(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
	return path
}

// newClient makes a client's certificate and key, and the pool that a server knows it by.
func newClient(t *testing.T) (cert, key string, pool *x509.CertPool) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "client"}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	require.NoError(t, err)
	parsed, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	pool = x509.NewCertPool()
	pool.AddCert(parsed)
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	require.NoError(t, err)
	return writePEM(t, "CERTIFICATE", der), writePEM(t, "PRIVATE KEY", keyDER), pool
}

func TestTLS(t *testing.T) {
	cert, key, pool := newClient(t)
	plain := (&fakeCollector{flows: cannedReply()}).serve(t)
	server, mutual := serveTLS(t, nil), serveTLS(t, pool)
	withToken := serveTLS(t, nil)
	withToken.token = "s3cret"
	token := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(token, []byte("s3cret\n"), 0o600))
	wrong := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(wrong, []byte("guess"), 0o600))

	tests := []struct {
		name, args string
		code       int
		says       string
	}{
		{"trusted", "--server " + server.address + " --tls-ca " + server.ca, 0, ""},
		{"another name", "--server " + server.address + " --tls-ca " + server.ca + " --tls-server-name example.com", 0, ""},
		{"any certificate", "--server " + server.address + " --insecure-skip-verify", 0, ""},
		{"unknown authority", "--server " + server.address + " --tls", exitFailed, "cannot trust the collector at " + server.address + ": x509: "},
		{"wrong name", "--server " + server.address + " --tls-ca " + server.ca + " --tls-server-name other", exitFailed, "--tls-server-name the host in it"},
		{"no TLS here", "--server " + server.address, exitFailed, "if it speaks TLS, use --tls"},
		{"no TLS there", "--agent " + plain + " --tls", exitFailed, "speaks no TLS; leave the --tls flags out"},
		{"certificate", "--server " + mutual.address + " --tls-ca " + mutual.ca + " --tls-cert " + cert + " --tls-key " + key, 0, ""},
		{"no certificate", "--server " + mutual.address + " --tls-ca " + mutual.ca, exitFailed, "--tls-cert and --tls-key give it a certificate"},
		{"half a certificate", "--server " + mutual.address + " --tls-cert " + cert, exitUsage, "--tls-cert and --tls-key go together"},
		{"no such file", "--server " + mutual.address + " --tls-ca /nowhere", exitUsage, "cannot read --tls-ca: open /nowhere: no such file"},
		{"no certificate in it", "--server " + mutual.address + " --tls-ca " + token, exitUsage, "has no certificate in PEM"},
		{"token", "--server " + withToken.address + " --tls-ca " + withToken.ca + " --token-file " + token, 0, ""},
		{"wrong token", "--server " + withToken.address + " --tls-ca " + withToken.ca + " --token-file " + wrong, exitFailed, "give it a token with --token-file"},
		{"no token", "--server " + withToken.address + " --tls-ca " + withToken.ca, exitFailed, "wants to know who asks"},
		{"no such token", "--server " + withToken.address + " --tls-ca " + withToken.ca + " --token-file /nowhere", exitFailed, "cannot read --token-file: open /nowhere"},
		{"token on this host", "--agent " + plain + " --token-file " + token, 0, ""},
		{"token in plain text", "--server 192.0.2.1:9090 --token-file " + token, exitUsage, "a token must not go to 192.0.2.1:9090 in plain text; use --tls"},
		{"two collectors", "--server a:1 --agent b:2", exitUsage, `invalid argument "b:2" for "--agent" flag: --server names one already`},
		{"no port", "--server gateway", exitUsage, `invalid --server or ORB8_SERVER "gateway": use HOST:PORT`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := orb8(t, "127.0.0.1:1", append([]string{"flows"}, strings.Fields(tt.args)...)...)
			assert.Equal(t, tt.code, got.code, got.stderr)
			assert.Contains(t, got.stderr, tt.says)
			if tt.code == 0 {
				assert.NotEmpty(t, got.stdout)
			} else {
				assert.Empty(t, got.stdout)
				assert.Equal(t, 1, strings.Count(got.stderr, "\n"), got.stderr)
			}
		})
	}
}

// TestATokenIsReadAgain holds that a long command goes on with the token that replaced its first.
func TestATokenIsReadAgain(t *testing.T) {
	server := serveTLS(t, nil)
	file := filepath.Join(t.TempDir(), "token")
	a := &app{target: target{server: server.address, tls: tlsOptions{ca: server.ca}, tokenFile: file}, now: testNow}
	defer a.close()
	for _, token := range []string{"first", "second"} {
		server.token = token
		require.NoError(t, os.WriteFile(file, []byte(token), 0o600))
		_, err := call(t.Context(), a, orb8v1connect.OrbitServiceClient.GetStatus, nil)
		require.NoError(t, err)
	}
}

func TestTargetFromEnvironment(t *testing.T) {
	server := serveTLS(t, nil)
	t.Setenv("ORB8_SERVER", server.address)
	t.Setenv("ORB8_TLS_CA", server.ca)
	a := &app{target: targetFromEnvironment(), now: testNow}
	var stdout, stderr strings.Builder
	assert.Zero(t, run(t.Context(), a, []string{"status"}, &stdout, &stderr), stderr.String())
	assert.Contains(t, stdout.String(), "collector "+server.address)

	// A flag wins, also over the variable of the other one.
	plain := (&fakeCollector{flows: cannedReply()}).serve(t)
	a = &app{target: targetFromEnvironment(), now: testNow}
	a.tls = tlsOptions{}
	assert.Zero(t, run(t.Context(), a, []string{"flows", "--agent", plain}, &stdout, &stderr), stderr.String())
}
