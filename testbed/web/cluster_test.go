//go:build linux

package web

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/gpu"
	"github.com/orb8/orb8/internal/syscalls"
)

const (
	// history is how far back the records of a scenario go.
	history  = 14 * time.Minute
	interval = 10 * time.Second
)

func outsideWorld(name, address string) who {
	return who{name: name, addr: netip.MustParseAddr(address)}
}

// shop is a small cluster: what a map of it should show is known.
func shop(now time.Time) *batch {
	const a, b, c = "node-a", "node-b", "node-c"
	gateway, web := pod(a, "ingress", "gateway", 0), pod(a, "shop", "web", 0)
	web2, cart, checkout := pod(b, "shop", "web", 1), pod(b, "shop", "cart", 0), pod(b, "shop", "checkout", 0)
	payments, db, cache := pod(c, "payments", "payments-api", 0), pod(c, "data", "postgres", 0), pod(c, "data", "redis", 0)
	search, prometheus := pod(b, "shop", "search", 0), pod(a, "monitoring", "prometheus", 0)
	trainer, dataset, dns := pod(c, "ml", "trainer", 0), pod(c, "ml", "dataset-cache", 0), pod(a, "kube-system", "coredns", 0)
	db.service, cart.service, payments.service = "postgres", "cart", "payments"
	legacy := who{addr: netip.MustParseAddr("10.96.7.7"), namespace: "legacy", service: "orders"}
	internet := outsideWorld("", "203.0.113.7")
	talks := []talk{
		{client: internet, server: gateway, port: 443, rate: 900_000},
		{client: gateway, server: web, port: 8080, rate: 500_000},
		{client: gateway, server: web2, port: 8080, rate: 420_000},
		{client: web, server: cart, port: 8080, rate: 90_000},
		{client: web2, server: cart, port: 8080, rate: 80_000},
		{client: web, server: search, port: 9200, rate: 240_000, retransmits: 0.02},
		{client: cart, server: cache, port: 6379, rate: 60_000},
		{client: cart, server: checkout, port: 8080, rate: 20_000},
		{client: checkout, server: payments, port: 8443, rate: 9_000},
		{client: checkout, server: db, port: 5432, rate: 120_000, long: true},
		{client: search, server: db, port: 5432, rate: 700_000, retransmits: 0.08},
		{client: payments, server: outsideWorld("api.bank.example", "198.51.100.20"), port: 443, rate: 6_000},
		{client: checkout, server: legacy, port: 8080, rate: 1, failing: true},
		{client: prometheus, server: web, port: 9090, rate: 9_000},
		{client: prometheus, server: cart, port: 9090, rate: 9_000},
		{client: prometheus, server: db, port: 9187, rate: 15_000},
		{client: trainer, server: dataset, port: 9000, rate: 2_500_000},
		{client: dataset, server: outsideWorld("datasets.example.org", "198.51.100.80"), port: 443, rate: 1_100_000, retransmits: 0.012},
		{client: web, server: dns, port: 53, rate: 800},
		{client: checkout, server: dns, port: 53, rate: 600},
		{client: who{addr: netip.MustParseAddr("10.0.0.11"), process: "kubelet", node: a}, server: web, port: 8081, rate: 300},
	}
	out := newBatch()
	random := rand.New(rand.NewPCG(1, 2))
	for at := now.Add(-history); at.Before(now.Add(-interval)); at = at.Add(interval) {
		for _, t := range talks {
			out.add(t, at, interval, random)
		}
		out.calls(search, at, interval, map[string]float64{"read": 900, "write": 700, "futex": 400, "epoll_wait": 300, "openat": 20})
		out.calls(web, at, interval, map[string]float64{"read": 300, "write": 300, "epoll_wait": 200})
		out.calls(trainer, at, interval, map[string]float64{"ioctl": 2000, "futex": 900, "read": 150})
	}
	for at := now.Add(-history); at.Before(now); at = at.Add(5 * time.Second) {
		for index := range 2 {
			out.gpu(trainer, index, gpu.MetricUtilization, "1", at, 0.55+0.4*random.Float64()-0.3*float64(index), gpu.AttrTask, gpu.TaskGeneral)
			out.gpu(trainer, index, gpu.MetricUtilization, "1", at, 0, gpu.AttrTask, "encoder")
			out.gpu(trainer, index, gpu.MetricMemoryUsage, "By", at, float64(60<<30)+float64(8<<30)*random.Float64())
			out.gpu(trainer, index, gpu.MetricPower, "W", at, 320+300*random.Float64()-180*float64(index))
		}
	}
	// It fell off the bus, twice.
	for back, errors := range map[time.Duration]float64{10 * time.Minute: 0, 4 * time.Minute: 2} {
		out.gpu(trainer, 1, gpu.MetricXIDErrors, "{error}", now.Add(-back), errors, "gpu.xid.code", "79")
	}
	out.anomaly(search, now.Add(-6*time.Minute), "new_call", "ptrace", "search never called ptrace before", syscalls.SeverityWarning)
	out.anomaly(search, now.Add(-2*time.Minute), "dangerous_call", "init_module", "search loads a kernel module", syscalls.SeverityCritical)
	started := now.Add(-3 * time.Hour)
	out.status(a, now, started, nil)
	out.status(b, now, started, nil)
	out.status(b, now, started, func(s *flow.NetworkStatus) {
		s.LostPackets, s.LostBytes = 1200, 1_300_000
		s.Unavailable = map[string]string{"drops": "the kernel has no tracepoint skb/kfree_skb with reasons; it needs Linux 5.17"}
	})
	// It has missed three intervals before anybody looks.
	out.status(c, now, started, func(s *flow.NetworkStatus) { s.Interval = time.Millisecond })
	return out
}

// units is a host without Kubernetes.
func units(now time.Time) *batch {
	unit := func(name, address string) who {
		return who{
			addr: netip.MustParseAddr(address), node: "server-1", cgroup: "/system.slice/" + name + ".service", process: name,
		}
	}
	nginx, database := unit("nginx", "127.0.0.1"), unit("postgresql", "127.0.0.2")
	shell := who{addr: netip.MustParseAddr("127.0.0.3"), node: "server-1", cgroup: "/user.slice/session-1.scope", process: "curl"}
	out := newBatch()
	random := rand.New(rand.NewPCG(5, 6))
	for at := now.Add(-history); at.Before(now.Add(-interval)); at = at.Add(interval) {
		out.add(talk{client: nginx, server: database, port: 5432, rate: 90_000}, at, interval, random)
		out.add(talk{client: shell, server: nginx, port: 80, rate: 4000}, at, interval, random)
		out.add(talk{client: nginx, server: outsideWorld("api.bank.example", "198.51.100.20"), port: 443, rate: 500}, at, interval, random)
		out.calls(nginx, at, interval, map[string]float64{"read": 300, "write": 300})
	}
	out.status("server-1", now, now.Add(-time.Hour), nil)
	return out
}

// crowd is far more than a map can show, with names that somebody chose to harm whoever looks at them.
func crowd(now time.Time) *batch {
	out := newBatch()
	random := rand.New(rand.NewPCG(3, 4))
	var pods []who
	for i := range 400 {
		pods = append(pods, pod(fmt.Sprintf("node-%d", i%9), fmt.Sprintf("team-%02d", i%23), fmt.Sprintf("service-%03d", i), 0))
	}
	at := now.Add(-2 * interval)
	for range 4000 {
		client, server := pods[random.IntN(len(pods))], pods[random.IntN(len(pods))/4]
		out.add(talk{client: client, server: server, port: 8080, rate: 100 + 1e6*random.ExpFloat64(), retransmits: 0.03 * max(0, random.Float64()-0.8)}, at, interval, random)
	}
	attacker := pods[0]
	for i, name := range hostileNames {
		evil := who{addr: netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}), name: name}
		out.add(talk{client: attacker, server: evil, port: 443, rate: 9e6}, at, interval, random)
		shell := who{addr: netip.AddrFrom4([4]byte{10, 9, 9, byte(i)}), process: name[:min(15, len(name))], node: "node-0"}
		out.add(talk{client: shell, server: attacker, port: 8080, rate: 9e6}, at, interval, random)
	}
	out.calls(attacker, at, interval, map[string]float64{"execve": 1})
	out.anomaly(attacker, at, "<script>window.harmed=1</script>", "execve", `ran </p><img src=x onerror="window.harmed=1">`, syscalls.SeverityCritical)
	for i := range 9 {
		out.status(fmt.Sprintf("node-%d", i), now, now.Add(-time.Hour), nil)
	}
	return out
}

var hostileNames = []string{
	`<script>window.harmed=1</script>`,
	`"><img src=x onerror=window.harmed=1>`,
	`javascript:window.harmed=1`,
	`' onfocus=window.harmed=1 autofocus x='`,
	`</title></svg><svg onload=window.harmed=1>`,
	`{{constructor.constructor('window.harmed=1')()}}`,
	"\u202egpj.exe\u0000\n&#x3c;b&gt;",
	`__proto__`,
}
