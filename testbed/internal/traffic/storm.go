//go:build linux

package traffic

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	netipv4 "golang.org/x/net/ipv4"

	"github.com/orb8/orb8/testbed/internal/lab"
)

// StormLoad is many UDP flows at once, from one socket to addresses that nobody has: the other node drops them in silence.
type StormLoad struct {
	// Flows is how many there are in all, at most 65536 x 60000.
	Flows int
	// PerSecond is how many begin in a second; 0 means as fast as possible.
	PerSecond int
	// Seconds is how long each lives: it sends a packet when it begins and one a second after that. 1 means one packet.
	Seconds int
	// Size of the payload in bytes.
	Size int
}

const (
	stormNetwork   = "10.99.0.0/16"
	stormFirstPort = 1024
	stormTick      = 10 * time.Millisecond
	stormBatch     = 64
)

// Storm sends the load from client towards server, and returns how many packets were sent.
func Storm(t testing.TB, client, server *lab.Node, load StormLoad) uint64 {
	t.Helper()
	routeNowhere(t, client, server)
	c := start(t, client, part{Storm: &load})
	var report Report
	c.read(&report)
	c.wait()
	return report.DatagramsSent
}

// Unanswered tries to open a TCP connection from client towards server to an address that nobody has, gives up, and returns
// the address.
func Unanswered(t testing.TB, client, server *lab.Node) string {
	t.Helper()
	routeNowhere(t, client, server)
	addr := stormAddress(1).String()
	require.NoError(t, client.Do(func() error {
		_, err := net.DialTimeout("tcp4", addr, time.Second/2)
		var timeout net.Error
		require.ErrorAs(t, err, &timeout)
		require.True(t, timeout.Timeout(), err)
		return nil
	}))
	return addr
}

// routeNowhere sends a network that nobody has to the server, which drops it without a word.
func routeNowhere(t testing.TB, client, server *lab.Node) {
	t.Helper()
	_, network, err := net.ParseCIDR(stormNetwork)
	require.NoError(t, err)
	require.NoError(t, client.Do(func() error {
		return netlink.RouteReplace(&netlink.Route{Dst: network, Gw: server.IPv4.AsSlice()})
	}))
}

// stormAddress is where flow number i goes.
func stormAddress(i int) *net.UDPAddr {
	ip := netip.MustParsePrefix(stormNetwork).Addr().As4()
	binary.BigEndian.PutUint16(ip[2:], uint16(i))
	return &net.UDPAddr{IP: ip[:], Port: stormFirstPort + i>>16}
}

func storm(load StormLoad) (r Report, err error) {
	conn, err := net.ListenUDP("udp4", nil)
	if err != nil {
		return r, err
	}
	defer conn.Close()
	s := &stormSender{conn: netipv4.NewPacketConn(conn), payload: make([]byte, load.Size)}
	if load.PerSecond == 0 {
		for i := range load.Flows {
			if err := s.send(i); err != nil {
				return r, err
			}
		}
		return Report{DatagramsSent: s.sent}, s.flush()
	}
	// In every tick some flows begin, and those that began a whole number of seconds ago send again.
	ticks := int(time.Second / stormTick)
	perTick := load.PerSecond / ticks
	next := time.Now()
	for tick := 0; tick*perTick < load.Flows+(load.Seconds-1)*load.PerSecond; tick++ {
		for age := range load.Seconds {
			first := (tick - age*ticks) * perTick
			for i := max(first, 0); i < min(first+perTick, load.Flows); i++ {
				if err := s.send(i); err != nil {
					return r, err
				}
			}
		}
		if err := s.flush(); err != nil {
			return r, err
		}
		next = next.Add(stormTick)
		time.Sleep(time.Until(next))
	}
	return Report{DatagramsSent: s.sent}, nil
}

// stormSender sends datagrams in batches.
type stormSender struct {
	conn    *netipv4.PacketConn
	payload []byte
	batch   []netipv4.Message
	sent    uint64
}

func (s *stormSender) send(flow int) error {
	s.batch = append(s.batch, netipv4.Message{Buffers: [][]byte{s.payload}, Addr: stormAddress(flow)})
	if len(s.batch) < stormBatch {
		return nil
	}
	return s.flush()
}

func (s *stormSender) flush() error {
	for len(s.batch) > 0 {
		n, err := s.conn.WriteBatch(s.batch, 0)
		if err != nil {
			return fmt.Errorf("after %d datagrams: %w", s.sent, err)
		}
		if n == 0 {
			return errors.New("nothing was sent")
		}
		s.sent += uint64(n)
		s.batch = s.batch[n:]
	}
	s.batch = s.batch[:0]
	return nil
}
