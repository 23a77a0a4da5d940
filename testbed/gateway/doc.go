// Package gateway tests the gateway with many agents: simulated ones, that send what real ones send over connections of their
// own, and the shipped configurations of agents and gateway as processes.
package gateway
