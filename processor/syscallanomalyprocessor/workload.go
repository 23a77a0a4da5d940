package syscallanomalyprocessor

import (
	"strings"

	"go.opentelemetry.io/collector/pdata/pcommon"

	"github.com/orb8/orb8/internal/flow"
)

const (
	attrImage         = "container.image.name"
	attrContainerName = "container.name"
)

// naming finds the workload of a resource.
type naming struct {
	sets [][]string
	// key is where one is written, as making it costs an allocation.
	key []byte
}

// keyOf returns what tells the resource's workload from others: the attributes and their values, each followed by a zero. It
// is valid until the next call, and empty if nothing names the workload.
func (n *naming) keyOf(attrs pcommon.Map) []byte {
	for _, set := range n.sets {
		n.key = n.key[:0]
		if n.appendSet(set, attrs) {
			return n.key
		}
	}
	return nil
}

// appendSet returns false if the resource has not all of the set.
func (n *naming) appendSet(set []string, attrs pcommon.Map) bool {
	for _, attribute := range set {
		v, ok := attrs.Get(attribute)
		if !ok || v.Type() != pcommon.ValueTypeStr || v.Str() == "" {
			return false
		}
		n.key = append(append(n.key, attribute...), '=')
		switch attribute {
		case attrImage:
			n.key = append(n.key, withoutTag(v.Str())...)
		case flow.AttrUnit, flow.AttrCgroupPath:
			n.key = appendGeneric(n.key, v.Str())
		default:
			n.key = append(n.key, v.Str()...)
		}
		n.key = append(n.key, 0)
	}
	return true
}

// display is what a person reads for a key: the values.
func display(key string) string {
	var b strings.Builder
	for part := range strings.SplitSeq(strings.TrimSuffix(key, "\x00"), "\x00") {
		if b.Len() > 0 {
			b.WriteByte('/')
		}
		_, value, _ := strings.Cut(part, "=")
		b.WriteString(value)
	}
	return b.String()
}

// withoutTag cuts tag and digest: versions of an image share what was learned. A colon before the last slash is that of a
// registry's port.
func withoutTag(image string) string {
	image, _, _ = strings.Cut(image, "@")
	if i := strings.LastIndexByte(image, ':'); i > strings.LastIndexByte(image, '/') {
		image = image[:i]
	}
	return image
}

// appendGeneric appends the name of a unit or the path of a cgroup with * for what tells one instance from another: what
// is between @ and the last dot of a unit's name, numbers of their own as in session-3.scope, eight or more hexadecimal digits, UUIDs.
func appendGeneric(dst []byte, path string) []byte {
	for component := range strings.SplitSeq(path, "/") {
		dst = append(appendComponent(dst, component), '/')
	}
	return dst[:len(dst)-1]
}

func appendComponent(dst []byte, name string) []byte {
	if at := strings.IndexByte(name, '@'); at >= 0 {
		if dot := strings.LastIndexByte(name, '.'); dot > at {
			return append(append(append(dst, name[:at+1]...), '*'), name[dot:]...)
		}
	}
	for {
		end := wordLength(name)
		if word := name[:end]; isUUID(word) || instanceLike(word) {
			dst = append(dst, '*')
		} else {
			dst = append(dst, word...)
		}
		if end == len(name) {
			return dst
		}
		dst = append(dst, name[end])
		name = name[end+1:]
	}
}

// uuidLength is that of a UUID's text; systemd writes underscores for its dashes.
const uuidLength = 36

// wordLength returns how long the first word of a name is. A UUID is one word.
func wordLength(name string) int {
	if len(name) >= uuidLength && isUUID(name[:uuidLength]) && (len(name) == uuidLength || strings.IndexByte("-._:", name[uuidLength]) >= 0) {
		return uuidLength
	}
	if end := strings.IndexAny(name, "-._:"); end >= 0 {
		return end
	}
	return len(name)
}

func isUUID(s string) bool {
	if len(s) != uuidLength {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if i == 8 || i == 13 || i == 18 || i == 23 {
			if c != '-' && c != '_' {
				return false
			}
		} else if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// instanceLike tells whether a word is a number, or hexadecimal and longer than a word that happens to be.
func instanceLike(word string) bool {
	digits, letters := 0, 0
	for i := range len(word) {
		switch c := word[i]; {
		case c >= '0' && c <= '9':
			digits++
		case c >= 'a' && c <= 'f', c == 'r' && i == 0: // run-r0123456789abcdef.scope
			letters++
		default:
			return false
		}
	}
	return digits > 0 && (letters == 0 || len(word) >= 8)
}
