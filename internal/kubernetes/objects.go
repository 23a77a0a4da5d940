package kubernetes

import "slices"

// replaceServices makes the Services the only ones.
func (c *Cache) replaceServices(services []*Service) {
	c.mu.Lock()
	there := make(map[string]bool, len(services))
	for _, s := range services {
		there[s.key] = true
		c.putService(s)
	}
	for key := range c.services {
		if !there[key] {
			c.removeService(key)
		}
	}
	c.mu.Unlock()
	c.changed()
}

func (c *Cache) setService(s *Service) {
	c.mu.Lock()
	c.putService(s)
	c.mu.Unlock()
	c.changed()
}

func (c *Cache) deleteService(s *Service) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.removeService(s.key)
}

func (c *Cache) putService(s *Service) {
	c.removeService(s.key)
	c.services[s.key] = s
	for _, addr := range s.clusterIPs {
		c.addClaim(addr, &claim{service: s})
	}
	for _, addr := range s.shared {
		c.addClaim(addr, &claim{service: s, shared: true})
	}
	for _, port := range s.nodePorts {
		c.nodePorts[port] = s
	}
}

func (c *Cache) removeService(key string) {
	s := c.services[key]
	if s == nil {
		return
	}
	delete(c.services, key)
	for _, addr := range slices.Concat(s.clusterIPs, s.shared) {
		c.removeClaims(addr, func(cl *claim) bool { return cl.service == s })
	}
	for _, port := range s.nodePorts {
		if c.nodePorts[port] == s {
			delete(c.nodePorts, port)
		}
	}
}

// replaceNodes makes the nodes the only ones.
func (c *Cache) replaceNodes(nodes []*Node) {
	c.mu.Lock()
	there := make(map[string]bool, len(nodes))
	for _, n := range nodes {
		there[n.Name] = true
		c.putNode(n)
	}
	for name := range c.nodes {
		if !there[name] {
			c.removeNode(name)
		}
	}
	c.mu.Unlock()
	c.changed()
}

func (c *Cache) setNode(n *Node) {
	c.mu.Lock()
	defer c.mu.Unlock()
	// Nodes tell of themselves all the time, and nearly always the same.
	if older := c.nodes[n.Name]; older != nil && older.Zone == n.Zone &&
		slices.Equal(older.addresses, n.addresses) && slices.Equal(older.podCIDRs, n.podCIDRs) {
		return
	}
	c.putNode(n)
}

func (c *Cache) deleteNode(n *Node) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.removeNode(n.Name)
}

func (c *Cache) putNode(n *Node) {
	c.removeNode(n.Name)
	c.nodes[n.Name] = n
	for _, addr := range n.addresses {
		c.addClaim(addr, &claim{node: n})
	}
	for _, prefix := range n.podCIDRs {
		c.ranges.add(prefix)
	}
}

func (c *Cache) removeNode(name string) {
	n := c.nodes[name]
	if n == nil {
		return
	}
	delete(c.nodes, name)
	for _, addr := range n.addresses {
		c.removeClaims(addr, func(cl *claim) bool { return cl.node == n })
	}
	for _, prefix := range n.podCIDRs {
		c.ranges.remove(prefix)
	}
}

// replaceSlices makes the EndpointSlices the only ones.
func (c *Cache) replaceSlices(slices []*slice) {
	c.mu.Lock()
	defer c.mu.Unlock()
	there := make(map[string]bool, len(slices))
	for _, s := range slices {
		there[s.key] = true
		c.putSlice(s)
	}
	for key := range c.slices {
		if !there[key] {
			c.removeSlice(key)
		}
	}
}

func (c *Cache) setSlice(s *slice) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.putSlice(s)
}

func (c *Cache) deleteSlice(s *slice) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.removeSlice(s.key)
}

func (c *Cache) putSlice(s *slice) {
	c.removeSlice(s.key)
	if s.service == nil {
		return
	}
	c.slices[s.key] = s
	for _, e := range s.endpoints {
		c.backends[e] = append(c.backends[e], s.service)
	}
}

func (c *Cache) removeSlice(key string) {
	s := c.slices[key]
	if s == nil {
		return
	}
	delete(c.slices, key)
	for _, e := range s.endpoints {
		left := slices.DeleteFunc(c.backends[e], func(service *Service) bool { return service == s.service })
		if len(left) == 0 {
			delete(c.backends, e)
		} else {
			c.backends[e] = left
		}
	}
}
