package engine

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// misdirected are parts of answers 400 to what would be right elsewhere: the way there is wrong, and the records are not. The first
// is of every server in Go that has TLS, the others are VictoriaLogs'.
var misdirected = []string{"HTTP request to an HTTPS server", "unsupported path requested", " are disabled with -"}

func isMisdirected(status int, reason string) bool {
	if status == http.StatusNotFound {
		return true
	}
	for _, part := range misdirected {
		if status == http.StatusBadRequest && strings.Contains(reason, part) {
			return true
		}
	}
	return false
}

// answerHint says which key of the configuration is to be looked at after an answer, if one is.
func answerHint(status int, reason string) string {
	switch {
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return "auth or headers"
	case isMisdirected(status, reason):
		return "endpoint"
	}
	return ""
}

// wayHint is answerHint where there was no answer.
func (c *Client) wayHint(err error) string {
	var (
		host    x509.HostnameError
		signer  x509.UnknownAuthorityError
		invalid x509.CertificateInvalidError
		op      *net.OpError
	)
	switch {
	case errors.As(err, &host):
		return "endpoint or tls::server_name_override"
	case errors.As(err, &signer):
		return "tls::ca_file"
	case errors.As(err, &invalid):
		return "tls::ca_file, and the server's certificate"
	case errors.As(err, &op) && op.Op == "remote error": // TLS': it does not know us
		return "tls::cert_file and tls::key_file"
	case errors.Is(err, http.ErrSchemeMismatch):
		return "endpoint: the server speaks http://"
	case strings.HasPrefix(c.Endpoint, "http:") && (errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed)): // all that some say who have TLS
		return "endpoint: the server may speak https://"
	}
	return ""
}

// hinted adds a hint to an error. Whoever reads it may have several stores, so that it names this one's key too.
func (c *Client) hinted(err error, hint string) error {
	if hint == "" {
		return err
	}
	return fmt.Errorf("%w; check %s::%s", err, c.Key, hint)
}

// shown is an address of the engine without the password that it may have.
func (c *Client) shown(path string) string {
	u, err := url.Parse(c.Endpoint + path)
	if err != nil {
		return c.Name
	}
	return u.Redacted()
}
