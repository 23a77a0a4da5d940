package orb8queryextension

import (
	"context"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/api/orb8/v1/orb8v1connect"
	"github.com/orb8/orb8/internal/storage"
)

// errQueryTimeout is the cause of the end of a call that took longer than the query timeout.
var errQueryTimeout = errors.New("query_timeout")

// service is orb8.v1.OrbitService over a store.
type service struct {
	store        storage.Reader
	version      string
	limits       limits
	queryTimeout time.Duration
}

// limits bound the answer to a query, whatever the request asks for.
type limits struct {
	rows, groups int
}

var _ orb8v1connect.OrbitServiceHandler = (*service)(nil)

func (s *service) QueryFlows(ctx context.Context, req *connect.Request[orb8v1.QueryFlowsRequest]) (*connect.Response[orb8v1.QueryFlowsResponse], error) {
	asked := time.Now()
	return answer(ctx, s, req, parseQuery, s.store.QueryFlows, func(query *storage.FlowQuery, result *storage.FlowResult) *orb8v1.QueryFlowsResponse {
		m := flowsResponse(result)
		m.NextPageToken = nextPage(req.Msg, asked, query.Until, result.Next)
		return m
	})
}

// answer is what all queries have in common: parse checks the request, ask asks the store for as long as an answer may take, and
// reply makes a message of it.
func answer[Request, Query, Result, Reply any](ctx context.Context, s *service, req *connect.Request[Request],
	parse func(*Request, limits) (Query, error), ask func(context.Context, Query) (Result, error), reply func(*Query, *Result) *Reply,
) (*connect.Response[Reply], error) {
	query, err := parse(req.Msg, s.limits)
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, s.queryTimeout, errQueryTimeout)
	defer cancel()
	result, err := ask(ctx, query)
	if err != nil {
		return nil, s.failure(ctx, err)
	}
	return connect.NewResponse(reply(&query, &result)), nil
}

func (s *service) GetStatus(ctx context.Context, _ *connect.Request[orb8v1.GetStatusRequest]) (*connect.Response[orb8v1.GetStatusResponse], error) {
	ctx, cancel := context.WithTimeoutCause(ctx, s.queryTimeout, errQueryTimeout)
	defer cancel()
	status, err := s.store.Status(ctx)
	if err != nil {
		return nil, s.failure(ctx, err)
	}
	return connect.NewResponse(statusResponse(&status, s.version)), nil
}

func (s *service) StreamEvents(ctx context.Context, req *connect.Request[orb8v1.StreamEventsRequest], stream *connect.ServerStream[orb8v1.StreamEventsResponse]) error {
	selection, err := parseEventSelection(req.Msg)
	if err != nil {
		return connect.NewError(connect.CodeInvalidArgument, err)
	}
	subscription := s.store.Subscribe(selection)
	defer subscription.Close()
	// The headers tell the client that it is subscribed: without them it would wait for the first event to know.
	if err := stream.Send(nil); err != nil {
		return err
	}
	for {
		event, dropped, err := subscription.Next(ctx)
		if err != nil {
			return s.failure(ctx, err)
		}
		if err := stream.Send(eventResponse(event, dropped)); err != nil {
			return err
		}
	}
}

// failure turns an error of the store into one that says whose fault it is.
func (s *service) failure(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	switch {
	case errors.Is(err, storage.ErrCursor):
		return connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("page_token: %w", errToken))
	case errors.Is(err, storage.ErrTooManyGroups):
		return connect.NewError(connect.CodeResourceExhausted, fmt.Errorf(
			"more than %d groups and buckets of groups; group by less, ask for a shorter range or longer buckets, or raise max_groups", s.limits.groups))
	case errors.As(err, new(*storage.PointsError)):
		return connect.NewError(connect.CodeResourceExhausted, fmt.Errorf("%w, or raise max_groups", err))
	case cause == nil && errors.As(err, new(*storage.UnavailableError)):
		return connect.NewError(connect.CodeUnavailable, err)
	case cause == nil:
		return connect.NewError(connect.CodeInternal, err)
	case errors.Is(cause, errStopping):
		return connect.NewError(connect.CodeUnavailable, errStopping)
	case errors.Is(cause, errQueryTimeout):
		return connect.NewError(connect.CodeDeadlineExceeded,
			fmt.Errorf("the answer took longer than the query_timeout of %s; ask for a shorter range, or raise it", s.queryTimeout))
	case errors.Is(cause, context.DeadlineExceeded):
		return connect.NewError(connect.CodeDeadlineExceeded, cause)
	default:
		return connect.NewError(connect.CodeCanceled, cause)
	}
}
