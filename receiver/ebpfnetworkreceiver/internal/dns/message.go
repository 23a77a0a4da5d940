package dns

import (
	"errors"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/orb8/orb8/internal/flow"
)

// question is what a message asks. Questions are equal when they ask the same.
type question struct {
	name  string // in lower case
	kind  dnsmessage.Type
	class dnsmessage.Class
}

// message is what a DNS message tells of a lookup.
type message struct {
	id       uint16
	response bool
	// asked is false where a response does not repeat the question, as when the server could not read it.
	asked    bool
	question question
	// name is the question's, in the letters in which it was asked.
	name       string
	rcode      string
	truncated  bool
	incomplete bool
	answers    []flow.Answer
}

// errNoLookup says that a message is well-formed and no business of ours: a zone update, a notification.
var errNoLookup = errors.New("neither a query nor its response")

// parse reads a message. Where whole is false, b is only its beginning, and answers that are cut off are left out.
func parse(b []byte, whole bool) (message, error) {
	var p dnsmessage.Parser
	header, err := p.Start(b)
	if err != nil {
		return message{}, err
	}
	if header.OpCode != 0 {
		return message{}, errNoLookup
	}
	m := message{id: header.ID, response: header.Response, truncated: header.Truncated}
	switch q, err := p.Question(); {
	case err == nil:
		m.asked = true
		m.name = nameText(&q.Name)
		m.question = question{strings.ToLower(m.name), q.Type, q.Class}
	case !m.response || !errors.Is(err, dnsmessage.ErrSectionDone):
		return message{}, err
	}
	if !m.response {
		return m, nil
	}
	if err := p.SkipAllQuestions(); err != nil {
		return message{}, err
	}
	m.answers, err = readAnswers(&p)
	if err != nil {
		if whole {
			return message{}, err
		}
		m.incomplete = true
	}
	m.rcode = rcodeName(extendedRCode(&p, header.RCode))
	return m, nil
}

// readAnswers returns what it has read on an error too.
func readAnswers(p *dnsmessage.Parser) ([]flow.Answer, error) {
	var answers []flow.Answer
	for {
		h, err := p.AnswerHeader()
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			return answers, nil
		}
		if err != nil {
			return answers, err
		}
		data, err := answerData(p, h.Type)
		if err != nil {
			return answers, err
		}
		ttl := h.TTL
		if ttl>>31 != 0 {
			ttl = 0 // RFC 2181, 8
		}
		answers = append(answers, flow.Answer{
			Name: nameText(&h.Name), Type: typeName(h.Type), TTL: time.Duration(ttl) * time.Second, Data: data,
		})
	}
}

// extendedRCode adds the upper bits of the response code that EDNS has in the last section, if that can be read.
func extendedRCode(p *dnsmessage.Parser, rcode dnsmessage.RCode) dnsmessage.RCode {
	if p.SkipAllAuthorities() != nil {
		return rcode
	}
	for {
		h, err := p.AdditionalHeader()
		if err != nil {
			return rcode
		}
		if h.Type == dnsmessage.TypeOPT {
			return h.ExtendedRCode(rcode)
		}
		if p.SkipAdditional() != nil {
			return rcode
		}
	}
}
