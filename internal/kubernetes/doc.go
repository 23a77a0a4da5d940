// Package kubernetes knows, of a node or of a cluster, which pod a UID and a container id are of, and who had an IP address
// at a time. It follows the API server (or the kubelet) and goes on from what it knows while that is away.
package kubernetes
