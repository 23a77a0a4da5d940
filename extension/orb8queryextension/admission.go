package orb8queryextension

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"connectrpc.com/connect"

	"github.com/orb8/orb8/api/orb8/v1/orb8v1connect"
)

// admission lets calls in before anything of them is read, and counts them until their replies have been written: both the filters
// of a request and the rows of a reply take far more memory than what crosses the network.
type admission struct {
	queries, streams *gate
	// timeout bounds a query with the time that it waits.
	timeout time.Duration
	errors  *connect.ErrorWriter
}

func newAdmission(c *Config, options ...connect.HandlerOption) *admission {
	return &admission{
		queries: newQueryGate(c.MaxQueries, c.MaxQueuedQueries),
		streams: newStreamGate(c.MaxStreams, c.MaxStreamsPerClient),
		timeout: c.QueryTimeout,
		errors:  connect.NewErrorWriter(options...),
	}
}

// wrap leaves alone what asks the store for no records, so that its state can always be told.
func (a *admission) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g := a.queries
		switch path := r.URL.Path; {
		case path == orb8v1connect.OrbitServiceStreamEventsProcedure:
			g = a.streams
		case path == orb8v1connect.OrbitServiceGetStatusProcedure || !strings.HasPrefix(path, "/"+orb8v1connect.OrbitServiceName+"/"):
			next.ServeHTTP(w, r)
			return
		default:
			ctx, cancel := context.WithTimeoutCause(r.Context(), a.timeout, errQueryTimeout)
			defer cancel()
			r = r.WithContext(ctx)
		}
		leave, err := g.enter(r.Context(), clientOf(r.RemoteAddr))
		if err != nil {
			// The client may be gone, which nobody needs to be told.
			_ = a.errors.Write(w, r, a.refusal(g, err))
			return
		}
		defer leave()
		next.ServeHTTP(w, r)
	})
}

func (a *admission) refusal(g *gate, err error) error {
	var why error
	switch {
	case !errors.Is(err, errFull) && !errors.Is(err, errFullForClient):
		return connect.NewError(connect.CodeDeadlineExceeded,
			fmt.Errorf("the query waited for all of the query_timeout of %s; ask again later, or raise max_queries", a.timeout))
	case g == a.streams && errors.Is(err, errFull):
		why = fmt.Errorf("all %d streams of this collector are in use; close one, or raise max_streams", g.limit)
	case g == a.streams:
		why = fmt.Errorf("%d streams are open to this client, as many as may be; close one, or raise max_streams_per_client", g.perClient)
	case errors.Is(err, errFull):
		why = fmt.Errorf("%d queries run and %d wait; ask again later, or raise max_queries or max_queued_queries", g.limit, g.queue)
	default:
		why = fmt.Errorf("this client has %d queries, and %d that wait: half of what may be; ask again later, or raise max_queries or "+
			"max_queued_queries", g.perClient, g.queuedPerClient)
	}
	return connect.NewError(connect.CodeResourceExhausted, why)
}
