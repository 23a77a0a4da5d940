package main

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

// endHelp goes into the help of commands that have --from and --to.
const endHelp = `--from and --to take, in this order of recognition:
  pod/[NS/]NAME, ns/NAME, svc/[NS/]NAME, name/DNS-NAME, and deploy/, sts/, ds/, job/, cronjob/ or
  workload/[NS/]NAME: what is before the slash decides (the kind of a workload itself is not compared);
  10.0.0.7, fd00::/8: an address or CIDR prefix;
  NS/ : a namespace; NS/NAME: a pod;
  *.example.com, example.com: whatever has a * or a dot is the DNS name by which the address was looked up;
  NAME: a pod.
With :PORT behind it only that port is meant: svc/shop/cart:8080, [fd00::1]:443, and :53 is that port of any end.`

// endKind is what an end is named by.
type endKind int

const (
	endAny endKind = iota // only the port counts
	endPod
	endNamespace
	endService
	endWorkload
	endName
	endAddress
)

// end is one value of --from or --to.
type end struct {
	kind endKind
	name string
	// port is 0 where any will do.
	port uint32
}

// endKinds are the words before the slash.
func endKinds() map[string]endKind {
	return map[string]endKind{
		"po": endPod, "pod": endPod, "pods": endPod,
		"ns": endNamespace, "namespace": endNamespace, "namespaces": endNamespace,
		"svc": endService, "service": endService, "services": endService,
		"workload": endWorkload, "deploy": endWorkload, "deployment": endWorkload, "sts": endWorkload, "statefulset": endWorkload,
		"ds": endWorkload, "daemonset": endWorkload, "rs": endWorkload, "replicaset": endWorkload, "job": endWorkload, "cronjob": endWorkload,
		"name": endName, "dns": endName, "ip": endAddress, "cidr": endAddress,
	}
}

// parseEnd reads a value of --from or --to, as endHelp says.
func parseEnd(s string) (end, error) {
	host, port, err := cutPort(s)
	if err != nil {
		return end{}, err
	}
	if host == "" && port != 0 {
		return end{port: port}, nil
	}
	kind, name, err := parseHost(host)
	return end{kind: kind, name: name, port: port}, err
}

func parseHost(s string) (endKind, string, error) {
	word, rest, slash := strings.Cut(s, "/")
	if kind, known := endKinds()[word]; known && slash {
		name, err := parseNamed(kind, rest)
		return kind, name, err
	}
	if ip, err := parseIP(s); err == nil {
		return endAddress, ip, nil
	}
	switch {
	case slash && rest == "":
		name, err := parseNamed(endNamespace, word)
		return endNamespace, name, err
	case slash:
		name, err := parseNamed(endPod, s)
		return endPod, name, err
	case strings.ContainsAny(s, "*."):
		return endName, s, nil
	}
	name, err := parseNamed(endPod, s)
	return endPod, name, err
}

// parseNamed reads the name of an end whose kind is known.
func parseNamed(kind endKind, s string) (string, error) {
	switch kind {
	case endAddress:
		return parseIP(s)
	case endName:
		return parseName(s)
	case endNamespace:
		// "ns/shop/" is a namespace said twice.
		s = strings.TrimSuffix(s, "/")
		if strings.Contains(s, "/") {
			return "", fmt.Errorf("%q is no namespace; use its name alone", s)
		}
		return parseName(s)
	}
	return parseQualified(s)
}

// cutPort takes the :PORT from the end of s. An address of version 6 has its colons; with a port it is in brackets.
func cutPort(s string) (host string, port uint32, err error) {
	if inside, after, ok := strings.Cut(s, "]"); ok && strings.HasPrefix(s, "[") {
		if _, err := netip.ParseAddr(inside[1:]); err != nil {
			return "", 0, fmt.Errorf("%q is no address in brackets; use one such as [fd00::1]:443", s)
		}
		if after == "" {
			return inside[1:], 0, nil
		}
		if after[0] != ':' {
			return "", 0, fmt.Errorf("%q has something other than :PORT behind the brackets", s)
		}
		port, err = parsePort(after[1:])
		return inside[1:], port, err
	}
	if strings.Count(s, ":") != 1 {
		return s, 0, nil
	}
	host, after, _ := strings.Cut(s, ":")
	port, err = parsePort(after)
	return host, port, err
}

// parseQualified reads NAME or NAMESPACE/NAME.
func parseQualified(s string) (string, error) {
	namespace, name, qualified := strings.Cut(s, "/")
	if s == "" || qualified && (namespace == "" || name == "" || strings.Contains(name, "/")) {
		return "", fmt.Errorf("%q is no name; use NAME or NAMESPACE/NAME", s)
	}
	return s, nil
}

// parseSelector looks at a label selector only as far as the server's answer would puzzle; the server parses it.
func parseSelector(s string) (string, error) {
	if strings.TrimSpace(s) == "" {
		return "", errors.New("a selector must not be empty; use one such as app=web")
	}
	return s, nil
}

// endpointFilters are the filters that together match any of the ends: one for each kind and port, as within a filter all must
// match.
func endpointFilters(ends []end) []*orb8v1.EndpointFilter {
	type group struct {
		kind endKind
		port uint32
	}
	var order []group
	filters := map[group]*orb8v1.EndpointFilter{}
	for _, e := range ends {
		g := group{e.kind, e.port}
		if e.kind == endAny {
			// Ports alone go together.
			g.port = 0
		}
		f := filters[g]
		if f == nil {
			f = &orb8v1.EndpointFilter{}
			filters[g] = f
			order = append(order, g)
		}
		e.addTo(f)
	}
	all := make([]*orb8v1.EndpointFilter, len(order))
	for i, g := range order {
		all[i] = filters[g]
	}
	return all
}

func (e end) addTo(f *orb8v1.EndpointFilter) {
	switch e.kind {
	case endPod:
		f.Pods = append(f.Pods, e.name)
	case endNamespace:
		f.Namespaces = append(f.Namespaces, e.name)
	case endService:
		f.Services = append(f.Services, e.name)
	case endWorkload:
		f.Workloads = append(f.Workloads, e.name)
	case endName:
		f.Names = append(f.Names, e.name)
	case endAddress:
		f.Ips = append(f.Ips, e.name)
	}
	if e.port != 0 && !slices.Contains(f.Ports, e.port) {
		f.Ports = append(f.Ports, e.port)
	}
}
