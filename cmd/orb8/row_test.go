package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

func TestNamesOfAnEndpoint(t *testing.T) {
	id := strings.Repeat("0123456789abcdef", 4)
	tests := []struct {
		name              string
		endpoint          *orb8v1.Endpoint
		short, full, proc string
	}{
		{"nothing but an address", &orb8v1.Endpoint{Address: "10.0.0.1", Port: 80}, "10.0.0.1:80", "", ""},
		{"no port", &orb8v1.Endpoint{Address: "10.0.0.1"}, "10.0.0.1", "", ""},
		{"IPv6", &orb8v1.Endpoint{Address: "fe80::1", Port: 80}, "[fe80::1]:80", "", ""},
		{"IPv6, no port", &orb8v1.Endpoint{Address: "fe80::1"}, "fe80::1", "", ""},
		{
			"pod",
			&orb8v1.Endpoint{Address: "10.0.0.1", Port: 80, Pod: "web-0", Namespace: "shop", Container: "nginx", ContainerId: id, Process: "nginx", Cgroup: "/k/x.scope"},
			"web-0:80", "shop/web-0/nginx", "nginx",
		},
		{"pod of a peer", &orb8v1.Endpoint{Pod: "web-0", Namespace: "shop"}, "web-0", "shop/web-0", ""},
		{"Kubernetes Service", &orb8v1.Endpoint{Address: "10.96.0.1", Port: 80, Service: "web", Namespace: "shop"}, "web:80", "shop/web", ""},
		{"pod of a Service", &orb8v1.Endpoint{Pod: "web-0", Namespace: "shop", Service: "web"}, "web-0", "shop/web-0", ""},
		{"node", &orb8v1.Endpoint{Address: "192.0.2.1", Port: 22, Node: "node-1"}, "node-1:22", "node-1", ""},
		{"process on the host network", &orb8v1.Endpoint{Address: "192.0.2.1", Cgroup: "/system.slice/ssh.service", Node: "node-1"}, "ssh.service", "/system.slice/ssh.service", ""},
		{"container", &orb8v1.Endpoint{Container: "nginx", ContainerId: id, Pid: 7}, "nginx", "nginx", "[7]"},
		{"container id", &orb8v1.Endpoint{ContainerId: id, Cgroup: "/docker/" + id, Process: "sh", Pid: 7}, "0123456789ab", "/docker/" + id, "sh[7]"},
		{"a short container id is no name", &orb8v1.Endpoint{Address: "::1", ContainerId: "0123"}, "::1", "", ""},
		{"service", &orb8v1.Endpoint{Cgroup: "/system.slice/ssh.service", Process: "sshd", Port: 22}, "ssh.service:22", "/system.slice/ssh.service", "sshd"},
		{"session scope", &orb8v1.Endpoint{Cgroup: "/user.slice/session-3.scope", Process: "curl"}, "curl", "/user.slice/session-3.scope", "curl"},
		{"session scope, process unknown", &orb8v1.Endpoint{Cgroup: "/user.slice/session-3.scope"}, "session-3.scope", "/user.slice/session-3.scope", ""},
		{"root cgroup", &orb8v1.Endpoint{Address: "::1", Cgroup: "/", Process: "init"}, "init", "/", "init"},
		{"root cgroup, process unknown", &orb8v1.Endpoint{Address: "::1", Cgroup: "/"}, "::1", "/", ""},
		{"process alone", &orb8v1.Endpoint{Address: "::1", Process: "ping"}, "ping", "", "ping"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			assert.Equal(t, tt.short, shortName(tt.endpoint))
			assert.Equal(t, tt.full, fullName(tt.endpoint))
			assert.Equal(t, tt.proc, process(tt.endpoint))
		})
	}
}

func TestDetail(t *testing.T) {
	tests := []struct {
		flow *orb8v1.Flow
		want string
	}{
		{&orb8v1.Flow{Transport: "tcp"}, ""},
		{&orb8v1.Flow{Transport: "tcp", TcpFlags: 2}, "syn"},
		{&orb8v1.Flow{Transport: "tcp", TcpFlags: 255}, "fin,syn,rst,psh,ack,urg,ece,cwr"},
		{&orb8v1.Flow{Transport: "udp", TcpFlags: 255, IcmpType: 1}, ""},
		{&orb8v1.Flow{Transport: "icmp"}, "0/0"},
		{&orb8v1.Flow{Transport: "ipv6-icmp", IcmpType: 1, IcmpCode: 4}, "1/4"},
	}
	for _, tt := range tests {
		assert.Equal(t, tt.want, detail(row{flow: tt.flow}), tt.flow)
	}
}

func TestLocalEndpoint(t *testing.T) {
	source, destination := &orb8v1.Endpoint{Address: "::1"}, &orb8v1.Endpoint{Address: "::2"}
	tests := map[orb8v1.Direction]*orb8v1.Endpoint{
		orb8v1.Direction_DIRECTION_INGRESS: destination,
		orb8v1.Direction_DIRECTION_EGRESS:  source,
	}
	for direction, want := range tests {
		r := row{flow: &orb8v1.Flow{Direction: direction, Source: source, Destination: destination}}
		assert.Same(t, want, r.local(), direction)
	}
}

func TestKindNames(t *testing.T) {
	want := map[orb8v1.EventKind]string{
		orb8v1.EventKind_EVENT_KIND_NEW:  "new",
		orb8v1.EventKind_EVENT_KIND_SYN:  "syn",
		orb8v1.EventKind_EVENT_KIND_FIN:  "fin",
		orb8v1.EventKind_EVENT_KIND_RST:  "rst",
		orb8v1.EventKind_EVENT_KIND_FLOW: "flow",
		orb8v1.EventKind_EVENT_KIND_END:  "end",
	}
	for kind, name := range want {
		assert.Equal(t, name, kindName(kind))
	}
}

func TestPrintable(t *testing.T) {
	assert.Equal(t, "kworker/0:1-events", printable("kworker/0:1-events"))
	assert.Equal(t, "é ü 進程", printable("é ü 進程"))
	// Escape codes could repaint the terminal, and direction marks could swap the two ends of a flow.
	assert.Equal(t, "?[2Jroot", printable("\x1b[2Jroot"))
	assert.Equal(t, "a?b?c?d", printable("a\nb\tc\u202ed"))
}
