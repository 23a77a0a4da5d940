//go:build linux

package traffic

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// firstSourcePort is where the source ports of a client's flows start: a closed socket's port is not taken again.
const firstSourcePort = 10000

func sendUDP(p part) (r Report, err error) {
	payload := make([]byte, p.WriteSize)
	for i := range p.Flows {
		if err := r.sendDatagrams(p, firstSourcePort+i, payload); err != nil {
			return r, err
		}
	}
	return r, nil
}

func (r *Report) sendDatagrams(p part, port int, payload []byte) error {
	conn, err := net.DialUDP(p.Network, &net.UDPAddr{Port: port}, net.UDPAddrFromAddrPort(p.Address))
	if err != nil {
		return err
	}
	defer conn.Close()
	r.addresses(conn.LocalAddr(), conn.RemoteAddr())
	answer := make([]byte, max(p.Reply, 1))
	for range p.Writes {
		n, err := conn.Write(payload)
		r.BytesSent += uint64(n)
		if err != nil {
			return err
		}
		if p.Reply == 0 {
			continue
		}
		if err := conn.SetReadDeadline(time.Now().Add(timeout)); err != nil {
			return err
		}
		if n, err = conn.Read(answer); err != nil {
			return err
		}
		r.BytesReceived += uint64(n)
		r.DatagramsReceived++
	}
	return nil
}

func serveUDP(p part, ready func(netip.AddrPort) error) (r Report, err error) {
	conn, err := net.ListenUDP(p.Network, net.UDPAddrFromAddrPort(p.Address))
	if err != nil {
		return r, err
	}
	defer conn.Close()
	if err := growReceiveBuffer(conn); err != nil {
		return r, err
	}
	if err := ready(netip.MustParseAddrPort(conn.LocalAddr().String())); err != nil {
		return r, err
	}
	if err := conn.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return r, err
	}
	buf, reply := make([]byte, p.WriteSize+1), make([]byte, p.Reply)
	for range p.Flows * p.Writes {
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return r, nil // the report says how many came
		}
		if err != nil {
			return r, err
		}
		r.addresses(conn.LocalAddr(), net.UDPAddrFromAddrPort(from))
		r.BytesReceived += uint64(n)
		r.DatagramsReceived++
		if p.Reply == 0 {
			continue
		}
		n, err = conn.WriteToUDPAddrPort(reply, from)
		r.BytesSent += uint64(n)
		if err != nil {
			return r, err
		}
	}
	return r, nil
}

// growReceiveBuffer makes room for a burst that comes faster than the server reads.
func growReceiveBuffer(conn syscall.Conn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	control := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 256<<20)
	})
	return errors.Join(control, err)
}
