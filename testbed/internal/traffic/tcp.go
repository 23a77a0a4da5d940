//go:build linux

package traffic

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The connections close in order, so that no segment is sent after the last one that the reports count: the client
// shuts its side, the server reads to the end, answers and shuts its own, the client reads to the end.

func sendTCP(p part) (r Report, err error) {
	payload := make([]byte, p.WriteSize)
	for range p.Flows {
		if err := r.sendConnection(p, payload); err != nil {
			return r, err
		}
	}
	return r, nil
}

func (r *Report) sendConnection(p part, payload []byte) error {
	c, err := net.DialTimeout(p.Network, p.Address.String(), timeout)
	if err != nil {
		return err
	}
	conn := c.(*net.TCPConn)
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	r.addresses(conn.LocalAddr(), conn.RemoteAddr())
	for range p.Writes {
		n, err := conn.Write(payload)
		r.BytesSent += uint64(n)
		if err != nil {
			return err
		}
	}
	if err := conn.CloseWrite(); err != nil {
		return err
	}
	if err := r.readToEnd(conn); err != nil {
		return err
	}
	return r.addSegments(conn)
}

func serveTCP(p part, ready func(netip.AddrPort) error) (r Report, err error) {
	l, err := net.Listen(p.Network, p.Address.String())
	if err != nil {
		return r, err
	}
	defer l.Close()
	if err := ready(l.Addr().(*net.TCPAddr).AddrPort()); err != nil {
		return r, err
	}
	if err := l.(*net.TCPListener).SetDeadline(time.Now().Add(timeout)); err != nil {
		return r, err
	}
	for range p.Flows {
		conn, err := l.Accept()
		if err != nil {
			return r, err
		}
		if err := r.serveConnection(conn.(*net.TCPConn), p.Reply); err != nil {
			return r, err
		}
	}
	return r, nil
}

func (r *Report) serveConnection(conn *net.TCPConn, reply int) error {
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	r.addresses(conn.LocalAddr(), conn.RemoteAddr())
	if err := r.readToEnd(conn); err != nil {
		return err
	}
	n, err := conn.Write(make([]byte, reply))
	r.BytesSent += uint64(n)
	if err != nil {
		return err
	}
	if err := conn.CloseWrite(); err != nil {
		return err
	}
	r.SegmentsSent++ // the SYN-ACK: sent before there was a socket to count it
	return r.addSegments(conn)
}

func (r *Report) addresses(local, remote net.Addr) {
	if !r.Local.IsValid() {
		r.Local, r.Remote = netip.MustParseAddrPort(local.String()), netip.MustParseAddrPort(remote.String())
	}
}

func (r *Report) readToEnd(conn *net.TCPConn) error {
	n, err := io.Copy(io.Discard, conn)
	r.BytesReceived += uint64(n)
	return err
}

// addSegments adds the connection's segment counts, once the last of them has been sent and acknowledged.
func (r *Report) addSegments(conn *net.TCPConn) error {
	const stateClose = 7 // TCP_CLOSE of the kernel's net/tcp_states.h
	for deadline := time.Now().Add(timeout); ; time.Sleep(time.Millisecond) {
		info, err := tcpInfo(conn)
		if err != nil {
			return err
		}
		if info.State == stateClose {
			r.SegmentsSent += uint64(info.Segs_out)
			r.SegmentsReceived += uint64(info.Segs_in)
			r.Retransmits += uint64(info.Total_retrans)
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("connection to %s: still in TCP state %d after %s", conn.RemoteAddr(), info.State, timeout)
		}
	}
}

func tcpInfo(conn syscall.Conn) (info *unix.TCPInfo, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	control := raw.Control(func(fd uintptr) {
		info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	})
	return info, errors.Join(control, err)
}
