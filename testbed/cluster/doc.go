// Package cluster runs a real Kubernetes on this machine, of programs that Build makes once and keeps outside the tree:
// a whole cluster of one node, or the control plane alone for tests of what talks to its API.
//
// A cluster sees the machine's processes and kernel, and nothing else of it; nothing of a cluster outlives Down, or the
// test that started it.
package cluster
