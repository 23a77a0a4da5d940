package kubernetes

import (
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// labelZone is where cloud providers and administrators say which failure zone a node is in.
const labelZone = "topology.kubernetes.io/zone"

// Service is what is kept of a Service.
type Service struct {
	Name, Namespace string

	key string
	// clusterIPs are the Service's alone; those in shared may be others' at other ports.
	clusterIPs, shared []netip.Addr
	ports              []Port
	nodePorts          []Port
	from               time.Time
}

// Node is what is kept of a node.
type Node struct {
	Name string
	// Zone is the failure zone; empty where the node has no such label.
	Zone string

	addresses []netip.Addr
	podCIDRs  []netip.Prefix
	from      time.Time
}

// slice is what is kept of an EndpointSlice.
type slice struct {
	key       string
	service   *Service // name and namespace alone
	endpoints []endpoint
}

type endpoint struct {
	addr netip.Addr
	port Port
}

func serviceFrom(s *corev1.Service) *Service {
	out := &Service{Name: s.Name, Namespace: s.Namespace, key: s.Namespace + "/" + s.Name, from: s.CreationTimestamp.Time}
	out.clusterIPs = appendAddrs(nil, s.Spec.ClusterIPs) // "None" is no address
	out.shared = appendAddrs(nil, s.Spec.ExternalIPs)
	for _, ingress := range s.Status.LoadBalancer.Ingress {
		out.shared = appendAddrs(out.shared, []string{ingress.IP})
	}
	for _, port := range s.Spec.Ports {
		transport := transportNumber(port.Protocol)
		out.ports = append(out.ports, Port{Number: uint16(port.Port), Transport: transport})
		if port.NodePort != 0 {
			out.nodePorts = append(out.nodePorts, Port{Number: uint16(port.NodePort), Transport: transport})
		}
	}
	return out
}

func nodeFrom(n *corev1.Node) *Node {
	out := &Node{Name: n.Name, Zone: n.Labels[labelZone], from: n.CreationTimestamp.Time}
	for _, address := range n.Status.Addresses {
		if address.Type == corev1.NodeInternalIP || address.Type == corev1.NodeExternalIP {
			out.addresses = appendAddrs(out.addresses, []string{address.Address})
		}
	}
	for _, cidr := range n.Spec.PodCIDRs {
		if prefix, err := netip.ParsePrefix(cidr); err == nil {
			out.podCIDRs = append(out.podCIDRs, prefix.Masked())
		}
	}
	return out
}

func sliceFrom(s *discoveryv1.EndpointSlice) *slice {
	out := &slice{key: s.Namespace + "/" + s.Name}
	name := s.Labels[discoveryv1.LabelServiceName]
	if name == "" {
		return out
	}
	out.service = &Service{Name: name, Namespace: s.Namespace, key: s.Namespace + "/" + name}
	for i := range s.Endpoints {
		for _, addr := range appendAddrs(nil, s.Endpoints[i].Addresses) {
			for _, port := range s.Ports {
				if port.Port == nil {
					continue
				}
				transport := corev1.ProtocolTCP
				if port.Protocol != nil {
					transport = *port.Protocol
				}
				out.endpoints = append(out.endpoints, endpoint{addr, Port{uint16(*port.Port), transportNumber(transport)}})
			}
		}
	}
	return out
}

// appendAddrs leaves out what is no address.
func appendAddrs(to []netip.Addr, texts []string) []netip.Addr {
	for _, text := range texts {
		if addr, err := netip.ParseAddr(text); err == nil {
			to = append(to, addr.Unmap())
		}
	}
	return to
}

func (s *Service) hasPort(port Port) bool {
	for _, p := range s.ports {
		if p == port {
			return true
		}
	}
	return false
}
