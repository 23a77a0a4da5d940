//go:build linux

package cluster

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// pki is the directory of a cluster's keys, certificates, tokens and kubeconfig files.
type pki string

func (p pki) path(name string) string { return filepath.Join(string(p), name) }

// kubeconfig returns the path of a user's kubeconfig file.
func (p pki) kubeconfig(user string) string { return p.path(user + ".kubeconfig") }

// user authenticates with a token, as the short names of kubeconfig files and the names that Kubernetes' own roles are
// bound to.
type user struct {
	file, name string
	groups     []string
}

var users = []user{
	{"admin", "admin", []string{"system:masters"}},
	{"kube-controller-manager", "system:kube-controller-manager", nil},
	{"kube-scheduler", "system:kube-scheduler", nil},
	{"kubelet", "system:node:" + NodeName, []string{"system:nodes"}},
	{"kube-proxy", "system:kube-proxy", []string{"system:node-proxier"}},
}

// write makes everything new. The server is the API server's URL, at one of the addresses.
func (p pki) write(server string, addresses ...net.IP) error {
	if err := os.MkdirAll(string(p), 0o700); err != nil {
		return err
	}
	ca, err := newAuthority()
	if err != nil {
		return err
	}
	service := []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"}
	err = ca.write(p.path("ca"))
	for _, leaf := range []struct {
		file, name string
		groups     []string
		dns        []string
		ips        []net.IP
	}{
		{"apiserver", "kube-apiserver", nil, service, append(addresses, net.IPv4(127, 0, 0, 1), net.ParseIP(apiServiceIP))},
		{"kubelet", NodeName, nil, []string{NodeName}, addresses},
		{"apiserver-kubelet-client", "kube-apiserver-kubelet-client", []string{"system:masters"}, nil, nil},
	} {
		if err == nil {
			err = ca.issue(p.path(leaf.file), pkix.Name{CommonName: leaf.name, Organization: leaf.groups}, leaf.dns, leaf.ips)
		}
	}
	if err == nil {
		err = p.writeServiceAccountKey()
	}
	if err == nil {
		err = p.writeUsers(server)
	}
	if err != nil {
		return fmt.Errorf("cannot make certificates: %w", err)
	}
	return nil
}

func (p pki) writeServiceAccountKey() error {
	key, err := newKey(p.path("sa.key"))
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return err
	}
	return writePEM(p.path("sa.pub"), "PUBLIC KEY", public)
}

// writeUsers writes a token and a kubeconfig file for each user.
func (p pki) writeUsers(server string) error {
	var tokens strings.Builder
	for _, u := range users {
		token := rand.Text()
		fmt.Fprintf(&tokens, "%s,%s,%s,\"%s\"\n", token, u.name, u.name, strings.Join(u.groups, ","))
		type named map[string]any
		// JSON is YAML too.
		text, err := json.Marshal(named{
			"apiVersion": "v1", "kind": "Config", "current-context": "cluster",
			"clusters": []named{{"name": "cluster", "cluster": named{"server": server, "certificate-authority": p.path("ca.crt")}}},
			"users":    []named{{"name": u.file, "user": named{"token": token}}},
			"contexts": []named{{"name": "cluster", "context": named{"cluster": "cluster", "user": u.file}}},
		})
		if err != nil {
			return err
		}
		if err := os.WriteFile(p.kubeconfig(u.file), text, 0o600); err != nil {
			return err
		}
	}
	return os.WriteFile(p.path("tokens.csv"), []byte(tokens.String()), 0o600)
}

// authority signs certificates.
type authority struct {
	key         *ecdsa.PrivateKey
	certificate *x509.Certificate
}

// validity is longer than any cluster lives, and begins before now for clocks that are set back.
const validity = 365 * 24 * time.Hour

func newAuthority() (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	certificate := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "cluster"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(validity),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, certificate, certificate, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	certificate, err = x509.ParseCertificate(der)
	return &authority{key, certificate}, err
}

func (a *authority) write(path string) error {
	if err := writeKey(path+".key", a.key); err != nil {
		return err
	}
	return writePEM(path+".crt", "CERTIFICATE", a.certificate.Raw)
}

// issue writes a key and its certificate, for servers and clients alike.
func (a *authority) issue(path string, name pkix.Name, dns []string, ips []net.IP) error {
	key, err := newKey(path + ".key")
	if err != nil {
		return err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 63))
	if err != nil {
		return err
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial, Subject: name, DNSNames: dns, IPAddresses: ips,
		NotBefore: a.certificate.NotBefore, NotAfter: a.certificate.NotAfter,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.certificate, &key.PublicKey, a.key)
	if err != nil {
		return err
	}
	return writePEM(path+".crt", "CERTIFICATE", der)
}

func newKey(path string) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	return key, writeKey(path, key)
}

func writeKey(path string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	return writePEM(path, "EC PRIVATE KEY", der)
}

func writePEM(path, kind string, der []byte) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}
