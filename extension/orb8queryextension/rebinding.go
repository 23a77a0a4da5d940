package orb8queryextension

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// forThisHost answers only requests for an address or for localhost, if the listener is one of the loopback interface. A page
// from elsewhere could otherwise have its own name resolve to 127.0.0.1 (DNS rebinding), and its reader's browser would hand it
// what this host does: to the browser, page and API would be of one origin.
func forThisHost(listener net.Addr, next http.Handler) http.Handler {
	if tcp, ok := listener.(*net.TCPAddr); !ok || !tcp.IP.IsLoopback() {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !namesThisHost(r.Host) {
			http.Error(w, fmt.Sprintf("This listens on %s, and answers what is asked of localhost or of an address, and not of %q.", listener, r.Host),
				http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// namesThisHost takes the Host header of a request, with or without a port. Any address will do: no resolver is asked for it.
func namesThisHost(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.ToLower(strings.Trim(host, "[]")), ".")
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}
