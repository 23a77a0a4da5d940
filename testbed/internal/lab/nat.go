//go:build linux

package lab

import (
	"net/netip"
	"os"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Translate makes Host a NAT router, as kube-proxy does with a node: what the client sends to service by TCP goes to backend,
// and comes from Host's address. Both must be IPv4.
func (l *Lab) Translate(t testing.TB, service, backend netip.AddrPort) {
	t.Helper()
	require.NoError(t, l.Host.Do(func() error {
		for name, value := range map[string]string{
			"ip_forward": "1",
			// Client and server are on one link: the host would tell them to spare the detour, by packets of its own.
			"conf/all/send_redirects":                "0",
			"conf/" + bridgeName + "/send_redirects": "0",
		} {
			if err := os.WriteFile("/proc/sys/net/ipv4/"+name, []byte(value), 0); err != nil {
				return err
			}
		}
		return nil
	}))
	require.NoError(t, l.Client.link.RouteAdd(&netlink.Route{
		Dst: netlink.NewIPNet(service.Addr().AsSlice()), Gw: l.Host.IPv4.AsSlice(),
	}))

	conn, err := nftables.New(nftables.WithNetNSFd(int(l.Host.ns)))
	require.NoError(t, err)
	table := conn.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "lab"})
	chain := func(name string, hook *nftables.ChainHook, priority *nftables.ChainPriority) *nftables.Chain {
		return conn.AddChain(&nftables.Chain{
			Name: name, Table: table, Type: nftables.ChainTypeNAT, Hooknum: hook, Priority: priority,
		})
	}
	conn.AddRule(&nftables.Rule{
		Table: table,
		Chain: chain("prerouting", nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest),
		Exprs: append(toTCP(service), translation(expr.NATTypeDestNAT, backend.Addr(), backend.Port())...),
	})
	conn.AddRule(&nftables.Rule{
		Table: table,
		Chain: chain("postrouting", nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource),
		Exprs: append(toTCP(backend), translation(expr.NATTypeSourceNAT, l.Host.IPv4, 0)...),
	})
	require.NoError(t, conn.Flush())
}

const (
	offsetIPv4Destination = 16
	offsetTCPDestination  = 2
)

// toTCP matches TCP segments to an address.
func toTCP(to netip.AddrPort) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Register: 1, Data: []byte{unix.IPPROTO_TCP}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offsetIPv4Destination, Len: 4},
		&expr.Cmp{Register: 1, Data: to.Addr().AsSlice()},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: offsetTCPDestination, Len: 2},
		&expr.Cmp{Register: 1, Data: binaryutil.BigEndian.PutUint16(to.Port())},
	}
}

// translation replaces an address and, unless it is 0, a port.
func translation(kind expr.NATType, addr netip.Addr, port uint16) []expr.Any {
	nat := &expr.NAT{Type: kind, Family: unix.NFPROTO_IPV4, RegAddrMin: 1}
	exprs := []expr.Any{&expr.Immediate{Register: 1, Data: addr.AsSlice()}}
	if port != 0 {
		nat.RegProtoMin = 2
		exprs = append(exprs, &expr.Immediate{Register: 2, Data: binaryutil.BigEndian.PutUint16(port)})
	}
	return append(exprs, nat)
}
