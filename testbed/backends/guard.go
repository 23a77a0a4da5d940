//go:build linux

package backends

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/orb8/orb8/internal/testutil"
)

// Guarded is a server that speaks TLS alone, and asks who is there.
type Guarded struct {
	*Server
	// CAFile is the authority that signed the server's certificate, and CertFile and KeyFile are a client's that it signed.
	CAFile, CertFile, KeyFile string
	// User and Password are those of VictoriaLogs.
	User, Password string
}

// GuardedVictoriaLogs starts one that asks for a password.
func GuardedVictoriaLogs(t testing.TB) *Guarded {
	t.Helper()
	a, at := newAuthority(t), testutil.FreeAddress(t)
	cert, key := a.issue(t, "server")
	g := &Guarded{CAFile: a.file, User: "orb8", Password: "of victorialogs"}
	g.Server = startAt(t, victoriaLogs, a.client(t), "https://"+at, "/health", "-httpListenAddr="+at, "-storageDataPath="+t.TempDir(),
		"-tls", "-tlsCertFile="+cert, "-tlsKeyFile="+key, "-httpAuth.username="+g.User, "-httpAuth.password="+g.Password)
	return g
}

// GuardedLoki starts one that asks for a client's certificate, as it has no passwords.
func GuardedLoki(t testing.TB) *Guarded {
	t.Helper()
	a := newAuthority(t)
	cert, key := a.issue(t, "server")
	g := &Guarded{CAFile: a.file}
	g.CertFile, g.KeyFile = a.issue(t, "client")
	g.Server = startLoki(t, a.client(t, g.CertFile, g.KeyFile), "https://", fmt.Sprintf(
		", http_tls_config: {cert_file: %s, key_file: %s, client_ca_file: %s, client_auth_type: RequireAndVerifyClientCert}", cert, key, a.file))
	return g
}

// authority signs certificates of 127.0.0.1.
type authority struct {
	file        string
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	a := &authority{file: filepath.Join(t.TempDir(), "ca.crt"), key: key, certificate: certificate("authority")}
	a.certificate.IsCA, a.certificate.BasicConstraintsValid, a.certificate.KeyUsage = true, true, x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, a.certificate, a.certificate, key.Public(), key)
	require.NoError(t, err)
	writePEM(t, a.file, "CERTIFICATE", der)
	return a
}

func (a *authority) issue(t testing.TB, name string) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := certificate(name)
	template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	require.NoError(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	base := filepath.Join(filepath.Dir(a.file), name)
	writePEM(t, base+".crt", "CERTIFICATE", der)
	writePEM(t, base+".key", "PRIVATE KEY", keyDER)
	return base + ".crt", base + ".key"
}

// client returns one that trusts the authority, with the certificate and key in two files, if any.
func (a *authority) client(t testing.TB, files ...string) *http.Client {
	t.Helper()
	text, err := os.ReadFile(a.file)
	require.NoError(t, err)
	config := &tls.Config{RootCAs: x509.NewCertPool()}
	require.True(t, config.RootCAs.AppendCertsFromPEM(text))
	if len(files) > 0 {
		pair, err := tls.LoadX509KeyPair(files[0], files[1])
		require.NoError(t, err)
		config.Certificates = []tls.Certificate{pair}
	}
	transport := &http.Transport{TLSClientConfig: config}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func certificate(name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
}

func writePEM(t testing.TB, path, kind string, der []byte) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
}
