package flow

import (
	"maps"
	"slices"
	"strings"
)

// maxLabelBytes bounds what a pod's labels take of every record of it.
const maxLabelBytes = 2048

// churning are labels that controllers give to pods to tell replicas and revisions apart: they say nothing that a person would select
// by, and make every pod another identity.
var churning = []string{
	"pod-template-hash", "controller-revision-hash", "pod-template-generation", "statefulset.kubernetes.io/pod-name",
	"apps.kubernetes.io/pod-index", "batch.kubernetes.io/job-completion-index", "batch.kubernetes.io/controller-uid", "controller-uid",
}

// FormatLabels writes labels as "k=v,k=v" in the order of their keys, without those that only tell replicas apart. Of more than 2 KiB
// the last are left out: no label is cut.
func FormatLabels(labels map[string]string) string {
	var b strings.Builder
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		if slices.Contains(churning, key) {
			continue
		}
		if b.Len()+len(",=")+len(key)+len(labels[key]) > maxLabelBytes {
			break
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(key)
		b.WriteByte('=')
		b.WriteString(labels[key])
	}
	return b.String()
}

// Label returns the value that a key has in what FormatLabels wrote.
func Label(labels, key string) (value string, ok bool) {
	for labels != "" {
		var label string
		label, labels, _ = strings.Cut(labels, ",")
		if value, ok = strings.CutPrefix(label, key); ok && strings.HasPrefix(value, "=") {
			return value[1:], true
		}
	}
	return "", false
}

// ParseLabels reads what FormatLabels wrote; nil when there are none.
func ParseLabels(labels string) map[string]string {
	if labels == "" {
		return nil
	}
	all := map[string]string{}
	for label := range strings.SplitSeq(labels, ",") {
		key, value, _ := strings.Cut(label, "=")
		all[key] = value
	}
	return all
}
