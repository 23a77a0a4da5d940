package syscallanomalyprocessor

import (
	"fmt"
	"slices"
	"time"

	"go.opentelemetry.io/collector/component"

	"github.com/orb8/orb8/internal/flow"
)

// Config is what the user says about the syscall_anomaly processor.
type Config struct {
	// Storage is the storage extension that keeps profiles across restarts. Nil: they are learned anew.
	Storage *component.ID `mapstructure:"storage"`
	// SaveInterval is the time between two writes of what has changed.
	SaveInterval time.Duration `mapstructure:"save_interval"`
	// Workload has lists of resource attributes. The values of the first list that a resource has in full name its workload.
	Workload [][]string `mapstructure:"workload"`
	// Learning says when a profile is complete.
	Learning Learning `mapstructure:"learning"`
	// MaxProfiles is how many workloads have a profile.
	MaxProfiles int `mapstructure:"max_profiles"`
	// Expiry is how long a profile is kept after its workload was last seen.
	Expiry time.Duration `mapstructure:"expiry"`
	// Cooldown is the least time between two reports of the same rule, workload and call.
	Cooldown time.Duration `mapstructure:"cooldown"`
	// Rules says which rules there are beside the built-in ones, and which of those are not wanted.
	Rules RulesConfig `mapstructure:"rules"`
}

// Learning ends when both have passed.
type Learning struct {
	// Window is the time since the workload was first seen.
	Window time.Duration `mapstructure:"window"`
	// MinIntervals is how many intervals of its containers must have been counted: a workload that ran for a minute and comes back
	// days later has taught nothing.
	MinIntervals int64 `mapstructure:"min_intervals"`
}

// RulesConfig changes the built-in rules and adds others.
type RulesConfig struct {
	// Disable names rules.
	Disable []string `mapstructure:"disable"`
	// Severity gives rules another severity, by their names.
	Severity map[string]string `mapstructure:"severity"`
	// Files are YAML files of rules and exceptions.
	Files []string `mapstructure:"files"`
	// Custom are rules as in a file.
	Custom []Rule `mapstructure:"custom"`
	// Exceptions are exceptions as in a file.
	Exceptions []Exception `mapstructure:"exceptions"`
}

const (
	// maxProfilesLimit keeps a typing error from taking all memory: a profile of 100 calls takes 11 kB.
	maxProfilesLimit = 100_000
	minSaveInterval  = time.Second
)

func createDefaultConfig() component.Config {
	return &Config{
		SaveInterval: 5 * time.Minute,
		Workload:     defaultWorkload(),
		Learning:     Learning{Window: 24 * time.Hour, MinIntervals: 60},
		MaxProfiles:  2000,
		Expiry:       7 * 24 * time.Hour,
		Cooldown:     10 * time.Minute,
	}
}

// defaultWorkload puts owners first, so that all pods of one share a profile. A CronJob comes before the Job that it makes,
// and a Deployment before the ReplicaSet that it makes, as those are new each time.
func defaultWorkload() [][]string {
	var sets [][]string
	for _, owner := range []string{
		"k8s.deployment.name", "k8s.statefulset.name", "k8s.daemonset.name", "k8s.cronjob.name", "k8s.job.name", "k8s.replicaset.name",
	} {
		sets = append(sets, []string{flow.AttrNamespace, owner, flow.AttrContainer})
	}
	return append(sets,
		[]string{attrImage},
		[]string{flow.AttrUnit},
		[]string{flow.AttrContainerID},
		[]string{flow.AttrCgroupPath})
}

// Validate names the key that is wrong, its value and what is allowed.
func (c *Config) Validate() error {
	if err := c.validateWorkload(); err != nil {
		return err
	}
	for _, d := range []struct {
		key        string
		value, min time.Duration
	}{
		{"save_interval", c.SaveInterval, minSaveInterval},
		{"learning.window", c.Learning.Window, time.Second},
		{"expiry", c.Expiry, c.Learning.Window},
		{"cooldown", c.Cooldown, 0},
	} {
		if d.value < d.min {
			return fmt.Errorf("%s: %s is too short; use %s or more", d.key, d.value, d.min)
		}
	}
	if c.Learning.MinIntervals < 1 {
		return fmt.Errorf("learning.min_intervals: %d is out of range; use 1 or more", c.Learning.MinIntervals)
	}
	if c.MaxProfiles < 1 || c.MaxProfiles > maxProfilesLimit {
		return fmt.Errorf("max_profiles: %d is out of range; use 1 to %d", c.MaxProfiles, maxProfilesLimit)
	}
	_, err := c.Rules.load()
	return err
}

func (c *Config) validateWorkload() error {
	if len(c.Workload) == 0 {
		return fmt.Errorf("workload: is empty; use lists of resource attributes such as [%s]", flow.AttrContainerID)
	}
	for i, set := range c.Workload {
		if len(set) == 0 || slices.Contains(set, "") {
			return fmt.Errorf("workload: list %d is empty or has an empty name; use names of resource attributes such as %s",
				i+1, flow.AttrContainerID)
		}
	}
	return nil
}
