package orb8queryextension

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

const (
	tokenVersion = 1
	// tokenHeader is the version, the hash of the request and the end of its range.
	tokenHeader = 1 + 8 + 8
	// maxTokenBytes is more than any store's cursor takes.
	maxTokenBytes = 16 << 10
)

var errToken = errors.New("not what a reply said; send next_page_token as it came")

// pagedRequest asks for an answer page by page.
type pagedRequest interface {
	proto.Message
	GetPageToken() string
}

// parsePage returns where a page begins, empty for the first one, and the end of the range: the one that the request had when the
// first page was asked for, so that what arrives in between is in no page.
func parsePage(req pagedRequest, until time.Time) (after string, end time.Time, err error) {
	token := req.GetPageToken()
	if token == "" {
		return "", until, nil
	}
	hash, end, after, err := parseToken(token)
	if err != nil {
		return "", until, fmt.Errorf("page_token: %w", err)
	}
	if hash != requestHash(req) {
		return "", until, errors.New("page_token: it is of another request; send all else as it was, but for the limit")
	}
	return after, end, nil
}

// nextPage returns the token of the page after this one; empty when there is none.
func nextPage(req pagedRequest, asked, until time.Time, next string) string {
	if next == "" {
		return ""
	}
	if until.IsZero() || until.After(asked) {
		until = asked
	}
	return formatToken(requestHash(req), until, next)
}

func formatToken(hash uint64, until time.Time, cursor string) string {
	header := binary.BigEndian.AppendUint64([]byte{tokenVersion}, hash)
	header = binary.BigEndian.AppendUint64(header, uint64(until.UnixNano()))
	return base64.RawURLEncoding.EncodeToString(header) + "." + cursor
}

func parseToken(token string) (hash uint64, until time.Time, cursor string, err error) {
	if len(token) > maxTokenBytes {
		return 0, until, "", errToken
	}
	text, cursor, ok := strings.Cut(token, ".")
	header, err := base64.RawURLEncoding.DecodeString(text)
	// The decoder overlooks line feeds and spare bits, of which a reply has none.
	if err != nil || !ok || cursor == "" || len(header) != tokenHeader || base64.RawURLEncoding.EncodeToString(header) != text {
		return 0, until, "", errToken
	}
	if header[0] != tokenVersion {
		return 0, until, "", fmt.Errorf("it is of version %d, and this orb8 knows %d; ask for the first page again", header[0], tokenVersion)
	}
	until = time.Unix(0, int64(binary.BigEndian.Uint64(header[9:]))).UTC()
	return binary.BigEndian.Uint64(header[1:]), until, cursor, nil
}

// requestHash tells requests apart, whichever page of which size they ask for.
func requestHash(req proto.Message) uint64 {
	m := proto.Clone(req).ProtoReflect()
	for _, name := range []protoreflect.Name{"page_token", "limit"} {
		m.Clear(m.Descriptor().Fields().ByName(name))
	}
	// What has just been parsed can be written; and if it could not, no two requests would be told apart by less than their kind.
	text, _ := proto.MarshalOptions{Deterministic: true}.Marshal(m.Interface())
	h := fnv.New64a()
	_, _ = h.Write([]byte(m.Descriptor().FullName()))
	_, _ = h.Write(text)
	return h.Sum64()
}
