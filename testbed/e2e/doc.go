// Package e2e runs orb8 on the test bed's Kubernetes, with pods whose traffic is known, and compares what arrives behind
// its gateway with what the container runtime knows of the pods.
package e2e
