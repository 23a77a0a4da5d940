// Package cluster runs a real Kubernetes on this machine, of programs that Build makes once and keeps outside the tree:
// the control plane alone for tests of what talks to its API.
package cluster
