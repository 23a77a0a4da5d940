package podenrichmentprocessor

import (
	"fmt"
	"path/filepath"

	"go.opentelemetry.io/collector/component"
)

// Config is what the user says about the pod_enrichment processor.
type Config struct {
	// CgroupPath is the root of the cgroup v2 hierarchy; when it is empty, it is looked up in the mounts.
	CgroupPath string `mapstructure:"cgroup_path"`
	// NodeName is the name of this node; when it is empty, the environment variable NODE_NAME is, or else the host name.
	NodeName string `mapstructure:"node_name"`
}

func createDefaultConfig() component.Config { return &Config{} }

// Validate names the key that is wrong, its value and what is allowed.
func (c *Config) Validate() error {
	if c.CgroupPath != "" && !filepath.IsAbs(c.CgroupPath) {
		return fmt.Errorf("cgroup_path: %q is not absolute; use the path of a cgroup v2 mount such as /sys/fs/cgroup, "+
			"or leave it empty to have one found", c.CgroupPath)
	}
	return nil
}
