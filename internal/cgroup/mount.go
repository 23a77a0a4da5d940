package cgroup

// Mount is a directory where the cgroup v2 hierarchy can be read.
type Mount struct {
	Path string
	// Partial is set when the directory is not the root of the hierarchy, as in a container with a cgroup namespace of
	// its own: the cgroups of the rest of the host are not below it.
	Partial bool
}
