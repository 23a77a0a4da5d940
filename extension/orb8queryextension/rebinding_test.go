package orb8queryextension

import (
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestANameThatIsNotThisHosts(t *testing.T) {
	answers := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	status := func(listener, host string) int {
		addr, err := net.ResolveTCPAddr("tcp", listener)
		assert.NoError(t, err)
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Host = host
		w := httptest.NewRecorder()
		forThisHost(addr, answers).ServeHTTP(w, r)
		return w.Code
	}
	for host, want := range map[string]int{
		"localhost": http.StatusNoContent, "LocalHost:9090": http.StatusNoContent, "localhost.:9090": http.StatusNoContent,
		"orb8.localhost:1": http.StatusNoContent, "127.0.0.1:9090": http.StatusNoContent, "127.0.0.1": http.StatusNoContent,
		"[::1]:9090": http.StatusNoContent, "[::1]": http.StatusNoContent, "192.0.2.1:80": http.StatusNoContent,
		"evil.example": http.StatusMisdirectedRequest, "evil.example:9090": http.StatusMisdirectedRequest,
		"127.0.0.1.evil.example:9090": http.StatusMisdirectedRequest, "localhost.evil.example": http.StatusMisdirectedRequest,
		"notlocalhost": http.StatusMisdirectedRequest, "": http.StatusMisdirectedRequest,
	} {
		assert.Equal(t, want, status("127.0.0.1:9090", host), "%q", host)
		assert.Equal(t, want, status("[::1]:9090", host), "%q", host)
		assert.Equal(t, http.StatusNoContent, status("192.0.2.7:9090", host), "others are the configuration's to guard: %q", host)
	}
}
