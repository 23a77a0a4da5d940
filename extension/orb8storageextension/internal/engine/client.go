package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"go.opentelemetry.io/collector/consumer/consumererror"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/plog/plogotlp"

	"github.com/orb8/orb8/internal/storage"
)

// maxReason bounds what an engine's answer adds to an error.
const maxReason = 512

// Client speaks HTTP with an engine.
type Client struct {
	// Writes and Queries have the timeouts, the credentials and the tenant.
	Writes, Queries *http.Client
	// Endpoint is the engine's address, with the path that its own are below and no slash at the end.
	Endpoint string
	// Name is the engine's, and Key is where the configuration has it; both are for errors.
	Name, Key string
}

// Push sends logs. What the engine refuses for good is a permanent error: to send it again would keep all that follows from being
// sent. All else may pass, a wrong password or address included, and the sender is to try again.
func (c *Client) Push(ctx context.Context, path string, header http.Header, logs plog.Logs) error {
	body, err := plogotlp.NewExportRequestFromLogs(logs).MarshalProto()
	if err != nil {
		return consumererror.NewPermanent(fmt.Errorf("cannot encode logs: %w", err))
	}
	header = header.Clone()
	if header == nil {
		header = http.Header{}
	}
	header.Set("Content-Type", "application/x-protobuf")
	response, err := c.post(ctx, c.Writes, path, header, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("cannot write to %s: %w", c.Name, err)
	}
	defer drain(response)
	if response.StatusCode/100 == 2 {
		return nil
	}
	reason := read(response)
	err = fmt.Errorf("cannot write to %s: %w", c.Name, c.refusal(path, response, reason))
	forGood := response.StatusCode == http.StatusBadRequest || response.StatusCode == http.StatusRequestEntityTooLarge
	if forGood && !isMisdirected(response.StatusCode, reason) {
		return consumererror.NewPermanent(err)
	}
	return err
}

// Ask asks for something and lets use read the answer. It posts a form, as queries may be longer than an address. Where it is for the
// engine that there is no answer, and not for the question, the error is a storage.UnavailableError.
func (c *Client) Ask(ctx context.Context, path string, form url.Values, use func(io.Reader) error) error {
	header := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
	away := true
	response, err := c.post(ctx, c.Queries, path, header, strings.NewReader(form.Encode()))
	if err == nil {
		defer drain(response)
		if response.StatusCode != http.StatusOK {
			reason := read(response)
			err, away = c.refusal(path, response, reason), isAway(response.StatusCode, reason)
		} else {
			body := &answer{Reader: response.Body}
			err = use(body)
			away = body.err != nil
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err == nil {
		return nil
	}
	if err = fmt.Errorf("cannot read from %s: %w", c.Name, err); away {
		return &storage.UnavailableError{Err: err}
	}
	return err
}

// isAway tells whether an answer is about the engine or the way to it. All others are about the question.
func isAway(status int, reason string) bool {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusTooManyRequests:
		return true
	}
	return status >= http.StatusInternalServerError || isMisdirected(status, reason)
}

// answer is an engine's, and keeps the error that ended it early.
type answer struct {
	io.Reader
	err error
}

func (a *answer) Read(p []byte) (n int, err error) {
	n, err = a.Reader.Read(p)
	if err != nil && err != io.EOF {
		a.err = err
	}
	return n, err
}

func (c *Client) post(ctx context.Context, client *http.Client, path string, header http.Header, body io.Reader) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.Endpoint+path, body)
	if err != nil {
		return nil, err
	}
	request.Header = header
	response, err := client.Do(request)
	if err != nil {
		return nil, c.hinted(err, c.wayHint(err))
	}
	return response, nil
}

// refusal says what the engine answered instead.
func (c *Client) refusal(path string, response *http.Response, reason string) error {
	text := c.shown(path) + " answers " + response.Status
	if reason != "" {
		text += ": " + reason
	}
	return c.hinted(errors.New(text), answerHint(response.StatusCode, reason))
}

// read returns the beginning of an answer, as one line.
func read(response *http.Response) string {
	reason, _ := io.ReadAll(io.LimitReader(response.Body, maxReason)) // what there is
	return printable(reason)
}

// printable makes one line of an engine's answer.
func printable(reason []byte) string {
	return strings.Join(strings.FieldsFunc(strings.ToValidUTF8(string(reason), "?"), func(r rune) bool { return r < ' ' || r == ' ' || r == 0x7f }), " ")
}

// drain lets the connection be used again, unless much is left.
func drain(response *http.Response) {
	_, _ = io.CopyN(io.Discard, response.Body, 64<<10)
	_ = response.Body.Close()
}
