package orb8queryextension

import (
	"context"
	"fmt"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"

	"github.com/orb8/orb8/api/orb8/v1/orb8v1connect"
	"github.com/orb8/orb8/internal/storage"
)

// healthTimeout is for how long the store may think about how it is.
const healthTimeout = 5 * time.Second

// health is grpc.health.v1.Health: the service is as well as its store.
type health struct {
	store storage.Reader
}

func (h *health) Check(ctx context.Context, req *grpchealth.CheckRequest) (*grpchealth.CheckResponse, error) {
	if req.Service != "" && req.Service != orb8v1connect.OrbitServiceName {
		return nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("service %q is not served here; ask for %s", req.Service, orb8v1connect.OrbitServiceName))
	}
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	if _, err := h.store.Status(ctx); err != nil {
		return &grpchealth.CheckResponse{Status: grpchealth.StatusNotServing}, nil
	}
	return &grpchealth.CheckResponse{Status: grpchealth.StatusServing}, nil
}
