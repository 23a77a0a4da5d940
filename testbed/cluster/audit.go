//go:build linux

package cluster

import (
	"encoding/json"
	"os"
	"path/filepath"
)

// Audit has the API server write a line of JSON (audit.k8s.io/v1, metadata) for each request of a group's users, from its
// next start on, and returns the file.
func (p *ControlPlane) Audit(group string) (path string, err error) {
	type fields map[string]any
	// JSON is YAML too.
	policy, err := json.Marshal(fields{
		"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": []string{"RequestReceived"},
		"rules": []fields{{"level": "Metadata", "userGroups": []string{group}}, {"level": "None"}},
	})
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(p.dir, auditPolicy), policy, 0o600); err != nil {
		return "", err
	}
	p.audits = true
	return filepath.Join(p.dir, auditLog), nil
}

const (
	auditPolicy = "audit-policy.json"
	auditLog    = "audit.log"
)
