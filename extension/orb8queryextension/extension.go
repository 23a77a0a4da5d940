package orb8queryextension

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"
	"connectrpc.com/grpcreflect"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componentstatus"
	"go.opentelemetry.io/collector/extension"
	"go.opentelemetry.io/collector/extension/extensioncapabilities"
	"go.uber.org/zap"
	"golang.org/x/net/netutil"

	"github.com/orb8/orb8/api/orb8/v1/orb8v1connect"
	"github.com/orb8/orb8/extension/orb8queryextension/internal/ui"
	"github.com/orb8/orb8/extension/orb8storageextension"
)

const (
	// compressMinBytes is the size of a reply from which on compression saves more than it costs.
	compressMinBytes = 1 << 10
	// maxConcurrentCalls is how many calls one HTTP/2 connection may have.
	maxConcurrentCalls = 128
	// receiveBuffer is what a connection may send before it is read: requests are small.
	receiveBuffer = 128 << 10
	// stall is for how long a subscriber may take in nothing of what was sent to it.
	stall = time.Minute
	// shutdownGrace is how long calls that were told to end may take to do so.
	shutdownGrace = 5 * time.Second
)

// errStopping is the cause of the end of every call at Shutdown.
var errStopping = errors.New("the collector is shutting down")

type queryExtension struct {
	settings extension.Settings
	config   *Config

	server *http.Server
	// stop ends all calls.
	stop    context.CancelCauseFunc
	serving sync.WaitGroup
}

var _ extensioncapabilities.Dependent = (*queryExtension)(nil)

// Dependencies makes the Collector start the storage first, and stop it last.
func (e *queryExtension) Dependencies() []component.ID {
	return []component.ID{e.config.Storage}
}

func (e *queryExtension) Start(ctx context.Context, host component.Host) error {
	store, err := orb8storageextension.Get(host, e.config.Storage)
	if err != nil {
		return err
	}
	var page http.Handler
	if e.config.UI.Enabled {
		if page, err = ui.Handler(); err != nil {
			return err
		}
	}
	handler := newHandler(&service{
		store:        store,
		version:      e.settings.BuildInfo.Version,
		limits:       limits{rows: e.config.MaxRows, groups: e.config.MaxGroups},
		queryTimeout: e.config.QueryTimeout,
	}, e.config, page)
	server, err := e.config.HTTP.ToServer(ctx, host.GetExtensions(), e.settings.TelemetrySettings, handler)
	if err != nil {
		return fmt.Errorf("cannot configure the server: %w", err)
	}
	// gRPC without TLS is HTTP/2 without TLS.
	server.Protocols = new(http.Protocols)
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetHTTP2(true)
	server.Protocols.SetUnencryptedHTTP2(true)

	server.HTTP2 = &http.HTTP2Config{
		MaxConcurrentStreams:          maxConcurrentCalls,
		MaxReceiveBufferPerConnection: receiveBuffer,
		MaxReceiveBufferPerStream:     receiveBuffer,
		SendPingTimeout:               time.Minute,
	}

	listener, err := e.config.HTTP.ToListener(ctx)
	if err != nil {
		return e.listenError(err)
	}
	server.Handler = forThisHost(listener.Addr(), server.Handler)
	listener = netutil.LimitListener(listener, e.config.MaxConnections)
	calls, stop := context.WithCancelCause(context.Background())
	server.BaseContext = func(net.Listener) context.Context { return calls }
	e.server, e.stop = server, stop
	e.serving.Go(func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			componentstatus.ReportStatus(host, componentstatus.NewFatalErrorEvent(err))
		}
	})
	e.settings.Logger.Info("Answering queries", zap.Stringer("endpoint", listener.Addr()))
	return nil
}

func (e *queryExtension) listenError(err error) error {
	endpoint := e.config.HTTP.NetAddr.Endpoint
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%s: endpoint: %s is in use; stop what listens there, or set another endpoint", e.settings.ID, endpoint)
	}
	return fmt.Errorf("%s: endpoint: cannot listen on %s: %w", e.settings.ID, endpoint, err)
}

// Shutdown ends all calls, streams too, and waits for the server.
func (e *queryExtension) Shutdown(ctx context.Context) error {
	if e.server == nil {
		return nil
	}
	e.stop(errStopping)
	ctx, cancel := context.WithTimeout(ctx, shutdownGrace)
	defer cancel()
	err := e.server.Shutdown(ctx)
	if err != nil {
		// A client that stopped reading holds its call up: it is not worth waiting for.
		err = e.server.Close()
	}
	e.serving.Wait()
	return err
}

// newHandler serves the service, its health, its reflection and the web page, unless that is nil.
func newHandler(s *service, c *Config, page http.Handler) http.Handler {
	options := []connect.HandlerOption{
		connect.WithReadMaxBytes(int(c.HTTP.MaxRequestBodySize)),
		connect.WithCompressMinBytes(compressMinBytes),
	}
	mux := http.NewServeMux()
	mux.Handle(orb8v1connect.NewOrbitServiceHandler(s, options...))
	reflector := grpcreflect.NewStaticReflector(orb8v1connect.OrbitServiceName, grpchealth.HealthV1ServiceName)
	mux.Handle(grpcreflect.NewHandlerV1(reflector, options...))
	mux.Handle(grpcreflect.NewHandlerV1Alpha(reflector, options...))
	mux.Handle(grpchealth.NewHandler(&health{store: s.store}, options...))
	if page != nil {
		mux.Handle("/", page)
	}
	return withoutEnd(orb8v1connect.OrbitServiceStreamEventsProcedure, stall, newAdmission(c, options...).wrap(mux))
}
