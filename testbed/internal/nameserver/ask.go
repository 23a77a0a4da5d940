//go:build linux

package nameserver

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

func ask(server netip.Addr, questions []Question) error {
	for i, q := range questions {
		if err := q.ask(uint16(1000+i), server); err != nil {
			return fmt.Errorf("%+v: %w", q, err)
		}
	}
	return nil
}

func (q *Question) ask(id uint16, server netip.Addr) error {
	query, err := (&dnsmessage.Message{
		Header: dnsmessage.Header{ID: id, RecursionDesired: true},
		Questions: []dnsmessage.Question{{
			Name: dnsmessage.MustNewName(q.Name + "."), Type: dnsmessage.Type(q.Type), Class: dnsmessage.ClassINET,
		}},
	}).Pack()
	if err != nil {
		return err
	}
	conn, err := net.DialTimeout(q.Network, netip.AddrPortFrom(server, Port).String(), timeout)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	var response []byte
	if q.Network == "tcp4" {
		if err := writeMessage(conn, query); err != nil {
			return err
		}
		response, err = readMessage(conn)
	} else {
		if _, err := conn.Write(query); err != nil || q.Name == Silence {
			return err
		}
		response = make([]byte, 512)
		var n int
		n, err = conn.Read(response)
		response = response[:n]
	}
	if err != nil || !q.Connect {
		return err
	}
	return connect(response)
}

// connect connects to the web port of the address in a response, and waits until the connection is over.
func connect(response []byte) error {
	var m dnsmessage.Message
	if err := m.Unpack(response); err != nil {
		return err
	}
	for _, answer := range m.Answers {
		a, ok := answer.Body.(*dnsmessage.AResource)
		if !ok {
			continue
		}
		conn, err := net.DialTimeout("tcp4", netip.AddrPortFrom(netip.AddrFrom4(a.A), WebPort).String(), timeout)
		if err != nil {
			return err
		}
		defer conn.Close()
		if err := errors.Join(conn.SetDeadline(time.Now().Add(timeout)), conn.(*net.TCPConn).CloseWrite()); err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, conn)
		return err
	}
	return errors.New("no address in the answer")
}
