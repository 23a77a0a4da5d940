package dns

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

// typeName returns the IANA name of a type, or TYPE and its number (RFC 3597). The names are of types that are asked for
// in practice.
func typeName(t dnsmessage.Type) string {
	switch t {
	case dnsmessage.TypeA:
		return "A"
	case dnsmessage.TypeNS:
		return "NS"
	case dnsmessage.TypeCNAME:
		return "CNAME"
	case dnsmessage.TypeSOA:
		return "SOA"
	case dnsmessage.TypePTR:
		return "PTR"
	case dnsmessage.TypeMX:
		return "MX"
	case dnsmessage.TypeTXT:
		return "TXT"
	case dnsmessage.TypeAAAA:
		return "AAAA"
	case dnsmessage.TypeSRV:
		return "SRV"
	case 35:
		return "NAPTR"
	case 39:
		return "DNAME"
	case 43:
		return "DS"
	case 46:
		return "RRSIG"
	case 47:
		return "NSEC"
	case 48:
		return "DNSKEY"
	case 50:
		return "NSEC3"
	case 52:
		return "TLSA"
	case dnsmessage.TypeSVCB:
		return "SVCB"
	case dnsmessage.TypeHTTPS:
		return "HTTPS"
	case 251:
		return "IXFR"
	case dnsmessage.TypeAXFR:
		return "AXFR"
	case dnsmessage.TypeALL:
		return "ANY"
	case 257:
		return "CAA"
	}
	return "TYPE" + strconv.Itoa(int(t))
}

// rcodeName returns the IANA name of a response code, or RCODE and its number.
func rcodeName(r dnsmessage.RCode) string {
	switch r {
	case dnsmessage.RCodeSuccess:
		return "NOERROR"
	case dnsmessage.RCodeFormatError:
		return "FORMERR"
	case dnsmessage.RCodeServerFailure:
		return "SERVFAIL"
	case dnsmessage.RCodeNameError:
		return "NXDOMAIN"
	case dnsmessage.RCodeNotImplemented:
		return "NOTIMP"
	case dnsmessage.RCodeRefused:
		return "REFUSED"
	case 6:
		return "YXDOMAIN"
	case 7:
		return "YXRRSET"
	case 8:
		return "NXRRSET"
	case 9:
		return "NOTAUTH"
	case 10:
		return "NOTZONE"
	case 16:
		return "BADVERS"
	case 23:
		return "BADCOOKIE"
	}
	return "RCODE" + strconv.Itoa(int(r))
}

// nameText returns a name without its last dot; the root is ".".
func nameText(n *dnsmessage.Name) string {
	raw := n.Data[:n.Length]
	if len(raw) > 1 {
		raw = raw[:len(raw)-1]
	}
	return escape(raw, " ")
}

// escape returns text that is printable ASCII on one line, as in a zone file (RFC 1035, 5.1). Names and texts come from
// whoever answers and may hold anything. Bytes in special are escaped too.
func escape(raw []byte, special string) string {
	var out strings.Builder
	out.Grow(len(raw))
	for _, c := range raw {
		switch {
		case c < ' ' || c > '~' || c == ' ' && strings.Contains(special, " "):
			fmt.Fprintf(&out, `\%03d`, c)
		case c == '\\' || strings.IndexByte(special, c) >= 0:
			out.WriteByte('\\')
			out.WriteByte(c)
		default:
			out.WriteByte(c)
		}
	}
	return out.String()
}

// answerData reads the resource whose header was just read, and returns it as in a zone file.
func answerData(p *dnsmessage.Parser, t dnsmessage.Type) (string, error) {
	switch t {
	case dnsmessage.TypeA:
		r, err := p.AResource()
		return netip.AddrFrom4(r.A).String(), err
	case dnsmessage.TypeAAAA:
		r, err := p.AAAAResource()
		return netip.AddrFrom16(r.AAAA).String(), err
	case dnsmessage.TypeCNAME:
		r, err := p.CNAMEResource()
		return nameText(&r.CNAME), err
	case dnsmessage.TypeNS:
		r, err := p.NSResource()
		return nameText(&r.NS), err
	case dnsmessage.TypePTR:
		r, err := p.PTRResource()
		return nameText(&r.PTR), err
	case dnsmessage.TypeMX:
		r, err := p.MXResource()
		return fmt.Sprintf("%d %s", r.Pref, nameText(&r.MX)), err
	case dnsmessage.TypeSRV:
		r, err := p.SRVResource()
		return fmt.Sprintf("%d %d %d %s", r.Priority, r.Weight, r.Port, nameText(&r.Target)), err
	case dnsmessage.TypeTXT:
		r, err := p.TXTResource()
		return txtData(r.TXT), err
	case dnsmessage.TypeSOA:
		r, err := p.SOAResource()
		return fmt.Sprintf("%s %s %d %d %d %d %d", nameText(&r.NS), nameText(&r.MBox), r.Serial, r.Refresh, r.Retry, r.Expire,
			r.MinTTL), err
	}
	r, err := p.UnknownResource()
	return fmt.Sprintf(`\# %d %s`, len(r.Data), hex.EncodeToString(r.Data)), err
}

func txtData(texts []string) string {
	quoted := make([]string, len(texts))
	for i, text := range texts {
		quoted[i] = `"` + escape([]byte(text), `"`) + `"`
	}
	return strings.Join(quoted, " ")
}
