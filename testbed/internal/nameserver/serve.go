//go:build linux

package nameserver

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// serve answers until it is killed.
func serve(addr netip.Addr, ready func()) error {
	at := net.JoinHostPort(addr.String(), "53")
	udp, err := net.ListenPacket("udp4", at)
	if err != nil {
		return err
	}
	tcp, err := net.Listen("tcp4", at)
	if err != nil {
		return err
	}
	web, err := net.Listen("tcp4", net.JoinHostPort(addr.String(), "8080"))
	if err != nil {
		return err
	}
	errs := make(chan error)
	go func() { errs <- serveUDP(udp, addr) }()
	go func() { errs <- serveTCP(tcp, addr) }()
	go func() { errs <- serveWeb(web) }()
	ready()
	return <-errs
}

func serveUDP(conn net.PacketConn, addr netip.Addr) error {
	buf := make([]byte, 512)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			return err
		}
		answer, err := respond(buf[:n], addr, false)
		if err != nil {
			return err
		}
		if answer == nil {
			continue
		}
		time.Sleep(Delay)
		if _, err := conn.WriteTo(answer, from); err != nil {
			return err
		}
	}
}

func serveTCP(l net.Listener, addr netip.Addr) error {
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		query, err := readMessage(conn)
		if err != nil {
			return err
		}
		answer, err := respond(query, addr, true)
		if err != nil {
			return err
		}
		time.Sleep(Delay)
		if err := errors.Join(writeMessage(conn, answer), conn.Close()); err != nil {
			return err
		}
	}
}

// serveWeb waits for the other side's end of each connection, and ends it.
func serveWeb(l net.Listener) error {
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		if _, err := io.Copy(io.Discard, conn); err != nil {
			return err
		}
		if err := conn.Close(); err != nil {
			return err
		}
	}
}

// respond returns the answer to a query, or nil where there is none.
func respond(query []byte, addr netip.Addr, tcp bool) ([]byte, error) {
	var m dnsmessage.Message
	if err := m.Unpack(query); err != nil {
		return nil, err
	}
	m.Response = true
	header := func(name string, ttl uint32) dnsmessage.ResourceHeader {
		return dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName(name + "."), Class: dnsmessage.ClassINET, TTL: ttl}
	}
	host := dnsmessage.Resource{Header: header(Host, 5), Body: &dnsmessage.AResource{A: addr.As4()}}
	switch strings.TrimSuffix(m.Questions[0].Name.String(), ".") {
	case Silence:
		return nil, nil
	case Host:
		m.Answers = []dnsmessage.Resource{host}
	case Web:
		alias := &dnsmessage.CNAMEResource{CNAME: dnsmessage.MustNewName(Host + ".")}
		m.Answers = []dnsmessage.Resource{{Header: header(Web, 300), Body: alias}, host}
	case Big:
		m.Truncated = !tcp
		if tcp {
			m.Answers = []dnsmessage.Resource{{Header: header(Big, 60), Body: &dnsmessage.TXTResource{TXT: []string{BigText(), BigText(), BigText()}}}}
		}
	default:
		m.RCode = dnsmessage.RCodeNameError
	}
	return m.Pack()
}

func readMessage(r io.Reader) ([]byte, error) {
	var length [2]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint16(length[:]))
	_, err := io.ReadFull(r, b)
	return b, err
}

// writeMessage writes the length and the message apart, so that they may be segments of their own.
func writeMessage(w io.Writer, b []byte) error {
	if _, err := w.Write(binary.BigEndian.AppendUint16(nil, uint16(len(b)))); err != nil {
		return err
	}
	_, err := w.Write(b)
	return err
}
