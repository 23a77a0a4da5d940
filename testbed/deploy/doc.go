// Package deploy tests the manifests in deploy/: what they ask for, and that a real Kubernetes takes and runs them.
package deploy
