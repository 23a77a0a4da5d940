package dcgm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
)

// maxPage bounds a page. 16 GPUs in seven instances each, with a hundred metrics and their labels, make 4 MiB.
const maxPage = 16 << 20

// ErrAbsent is the error of a Scrape when there is no exporter at the endpoint: nobody answers there, or something else.
var ErrAbsent = errors.New("there is no dcgm-exporter")

// absent makes an error one that is ErrAbsent, without another word.
type absent struct{ error }

func (a absent) Is(target error) bool { return target == ErrAbsent }

func (a absent) Unwrap() error { return a.error }

// Client asks one dcgm-exporter.
type Client struct {
	http     *http.Client
	endpoint string
}

// NewClient returns a client of the exporter at the endpoint, such as http://localhost:9400/metrics.
func NewClient(client *http.Client, endpoint string) *Client {
	return &Client{client, endpoint}
}

// Scrape asks for a page. An error names the endpoint, and whether nobody answers there or something else.
func (c *Client) Scrape(ctx context.Context) (*Page, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.endpoint, http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("cannot scrape dcgm-exporter: %w", err)
	}
	// Prometheus's text, rather than what a newer exporter may prefer.
	req.Header.Set("Accept", "text/plain;version=0.0.4;q=1,*/*;q=0.1")
	resp, err := c.http.Do(req)
	if err != nil {
		if op := (*net.OpError)(nil); errors.As(err, &op) && op.Op == "dial" {
			err = absent{err}
		}
		return nil, fmt.Errorf("cannot scrape dcgm-exporter: %w", err)
	}
	defer resp.Body.Close()
	page, err := read(resp)
	if err != nil {
		return nil, fmt.Errorf("cannot scrape dcgm-exporter: %s: %w", c.endpoint, err)
	}
	return page, nil
}

// Close lets go of connections that are kept open.
func (c *Client) Close() { c.http.CloseIdleConnections() }

func read(resp *http.Response) (*Page, error) {
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound:
		return nil, absent{fmt.Errorf("%s; the exporter's path is /metrics", resp.Status)}
	default:
		return nil, errors.New(resp.Status)
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxPage+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxPage {
		return nil, fmt.Errorf("the page is larger than %d MiB", maxPage>>20)
	}
	page, err := Parse(text)
	if errors.Is(err, errForeign) {
		err = absent{err}
	}
	if err != nil {
		return nil, fmt.Errorf("the page is not what dcgm-exporter writes: %w", err)
	}
	return page, nil
}
