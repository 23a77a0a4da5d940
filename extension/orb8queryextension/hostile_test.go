package orb8queryextension

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/config/configoptional"
	"go.opentelemetry.io/collector/config/configtls"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/api/orb8/v1/orb8v1connect"
	"github.com/orb8/orb8/internal/flow"
)

// attacker comes from an address of its own, as who asks in earnest does.
var attacker = &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 66)}}

func attack(t *testing.T) *http.Client {
	t.Helper()
	transport := &http.Transport{DialContext: attacker.DialContext, Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// send sends bytes and reads what comes until the server has had enough, or the attacker.
func send(address string, message []byte) {
	conn, err := attacker.Dial("tcp", address)
	if err != nil {
		return
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	_, _ = conn.Write(message)
	_, _ = io.Copy(io.Discard, conn)
}

// Whatever a client does, others are answered, and the server's memory does not grow with it.
func TestHostileClients(t *testing.T) {
	store, component := newStore(t)
	records := make([]flow.Record, 20_000)
	for i := range records {
		records[i] = record(uint16(i))
	}
	require.NoError(t, store.WriteFlows(t.Context(), records))
	certFile, keyFile, _ := certificate(t)
	plain := serve(t, component, nil)
	secured := serve(t, component, func(c *Config) {
		tls := configtls.NewDefaultServerConfig()
		tls.CertFile, tls.KeyFile = certFile, keyFile
		c.HTTP.TLS = configoptional.Some(tls)
	})
	url := "http://" + plain.address
	all := func(count int, do func(i int)) func() {
		return func() {
			var wg sync.WaitGroup
			for i := range count {
				wg.Go(func() { do(i) })
			}
			wg.Wait()
		}
	}
	post := func(client *http.Client, contentType, encoding string, body []byte) int {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+orb8v1connect.OrbitServiceQueryFlowsProcedure, bytes.NewReader(body))
		if err != nil {
			return 0
		}
		req.Header.Set("Content-Type", contentType)
		if encoding != "" {
			req.Header.Set("Content-Encoding", encoding)
		}
		resp, err := client.Do(req)
		if err != nil {
			return 0
		}
		defer resp.Body.Close()
		_, _ = io.Copy(io.Discard, resp.Body)
		return resp.StatusCode
	}
	var bomb bytes.Buffer
	w := gzip.NewWriter(&bomb)
	_, err := io.CopyN(w, zeros{}, 256<<20)
	require.NoError(t, errors.Join(err, w.Close()))
	client := attack(t)
	unread := attack(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var open sync.WaitGroup
	var refused atomic.Int64
	attacks := map[string]func(){
		"headers that never end": all(300, func(int) { send(plain.address, []byte("POST / HTTP/1.1\r\nHost: x\r\nX-Slow: ")) }),
		"headers without end": all(4, func(int) {
			send(plain.address, []byte("GET / HTTP/1.1\r\nHost: x\r\nX: "+strings.Repeat("x", 8<<20)))
		}),
		"bodies that never come": all(50, func(int) {
			send(plain.address, []byte("POST "+orb8v1connect.OrbitServiceQueryFlowsProcedure+
				" HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"))
		}),
		"garbage": all(100, func(i int) {
			noise := make([]byte, 1+mathrand.IntN(4096))
			_, _ = rand.Read(noise)
			types := []string{"application/json", "application/proto", "application/grpc", "application/grpc-web", "text/html", ""}
			assert.NotEqual(t, http.StatusInternalServerError, post(client, types[i%len(types)], "", noise))
			send(plain.address, noise)
			send(plain.address, append([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), noise...))
			send(secured.address, noise)
		}),
		"bombs": all(3, func(int) {
			for _, contentType := range []string{"application/json", "application/proto"} {
				assert.NotEqual(t, http.StatusOK, post(client, contentType, "gzip", bomb.Bytes()))
			}
		}),
		"what is too large": all(3, func(int) {
			assert.NotEqual(t, http.StatusOK, post(client, "application/json", "", bytes.Repeat([]byte(" "), 8<<20)))
		}),
		"bad TLS": all(50, func(i int) {
			conn, err := attacker.Dial("tcp", []string{plain.address, secured.address}[i%2])
			if err == nil {
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(time.Second))
				_ = tls.Client(conn, &tls.Config{ServerName: "nobody", MaxVersion: tls.VersionTLS12}).Handshake()
			}
		}),
		"huge limits": all(10, func(int) {
			c := orb8v1connect.NewOrbitServiceClient(client, url, connect.WithGRPC())
			_, err := c.QueryFlows(t.Context(), connect.NewRequest(&orb8v1.QueryFlowsRequest{Limit: 1<<32 - 1, Deny: make([]*orb8v1.FlowFilter, 100_000)}))
			assert.Error(t, err)
			_, _ = c.Aggregate(t.Context(), connect.NewRequest(&orb8v1.AggregateRequest{By: []string{"source.port", "destination.port"}, Top: 1<<32 - 1}))
		}),
		"calls that are given up": all(500, func(int) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(mathrand.IntN(20))*time.Millisecond)
			defer cancel()
			_, _ = orb8v1connect.NewOrbitServiceClient(client, url).QueryFlows(ctx, connect.NewRequest(&orb8v1.QueryFlowsRequest{Limit: 10}))
		}),
		"replies that nobody reads": all(60, func(int) {
			req, _ := http.NewRequestWithContext(ctx, http.MethodPost, url+orb8v1connect.OrbitServiceQueryFlowsProcedure, http.NoBody)
			req.Header.Set("Content-Type", "application/proto")
			req.Header.Set("Accept-Encoding", "identity")
			open.Go(func() {
				if resp, err := unread.Do(req); err == nil {
					<-ctx.Done()
					resp.Body.Close()
				}
			})
		}),
		"1,000 streams": all(1000, func(int) {
			open.Go(func() {
				s, err := orb8v1connect.NewOrbitServiceClient(unread, url, connect.WithGRPC()).StreamEvents(ctx, connect.NewRequest(&orb8v1.StreamEventsRequest{}))
				if err != nil {
					return
				}
				if !s.Receive() && connect.CodeOf(s.Err()) == connect.CodeResourceExhausted {
					refused.Add(1)
				}
			})
		}),
	}

	// Somebody asks in earnest, all the time.
	friend := plain.client(t)
	asked, slowest := 0, time.Duration(0)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
			start := time.Now()
			reply, err := friend.QueryFlows(t.Context(), connect.NewRequest(&orb8v1.QueryFlowsRequest{Limit: 10}))
			if !assert.NoError(t, err) {
				return
			}
			assert.Len(t, reply.Msg.GetFlows(), 10)
			slowest = max(slowest, time.Since(start))
			asked++
		}
	}()
	most, streams := uint64(0), 0
	var wg sync.WaitGroup
	for name, do := range attacks {
		wg.Go(func() {
			start := time.Now()
			do()
			t.Logf("%s: %s", name, time.Since(start).Round(time.Millisecond))
		})
	}
	finished := make(chan struct{})
	go func() { wg.Wait(); close(finished) }()
	for over := false; !over; {
		select {
		case <-finished:
			over = true
		case <-time.After(50 * time.Millisecond):
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		most = max(most, m.HeapInuse)
		state, err := store.Status(t.Context())
		require.NoError(t, err)
		streams = max(streams, state.Store.Subscribers)
	}
	close(stop)
	<-done
	cancel()
	open.Wait()

	t.Logf("%d questions were answered meanwhile, the slowest in %s; at most %d MiB of heap, the attackers' included", asked, slowest, most>>20)
	assert.Greater(t, asked, 2)
	assert.Less(t, slowest, patience)
	assert.Less(t, most, uint64(1<<30))
	assert.LessOrEqual(t, streams, createDefaultConfig().(*Config).MaxStreamsPerClient)
	assert.Positive(t, streams)
	assert.Positive(t, refused.Load())
	require.Eventually(t, func() bool {
		status, err := store.Status(t.Context())
		return err == nil && status.Store.Subscribers == 0
	}, patience, tick, "no stream is left")
	require.Eventually(t, func() bool {
		_, err := friend.QueryFlows(t.Context(), connect.NewRequest(&orb8v1.QueryFlowsRequest{}))
		return err == nil
	}, patience, tick)
}

// zeros has no end.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}
