package embedded

import (
	"slices"
	"strings"

	"github.com/orb8/orb8/extension/orb8storageextension/internal/block"
	"github.com/orb8/orb8/internal/flow"
	"github.com/orb8/orb8/internal/storage"
)

// absent tells that no flow can match a selection, because no record has what each of its filters asks for. Which record has it
// does not matter: a flow is selected by what is known of either of its ends. It reads nothing but bloom filters, and errs towards
// reading the blocks.
func absent(selection *storage.Selection, files []*block.File, views []view) bool {
	if len(selection.Allow) == 0 {
		return false
	}
	var groups []*block.Group
	for _, f := range files {
		groups = append(groups, f.Groups()...)
	}
	has := func(column, word string, is func(*flow.Identity) bool) bool {
		for i := range views {
			if slices.ContainsFunc(views[i].identities, func(who flow.Identity) bool { return is(&who) }) {
				return true
			}
		}
		return slices.ContainsFunc(groups, func(g *block.Group) bool {
			return g.MayHave("source_"+column, word) || g.MayHave("destination_"+column, word)
		})
	}
	pod := func(name string) bool {
		if _, unqualified, qualified := strings.Cut(name, "/"); qualified {
			name = unqualified
		}
		return has("pod", name, func(who *flow.Identity) bool { return who.Pod == name })
	}
	namespace := func(name string) bool {
		return has("namespace", name, func(who *flow.Identity) bool { return who.Namespace == name })
	}
	return !slices.ContainsFunc(selection.Allow, func(f storage.Filter) bool {
		return (len(f.Pods) == 0 || slices.ContainsFunc(f.Pods, pod)) &&
			(len(f.Namespaces) == 0 || slices.ContainsFunc(f.Namespaces, namespace))
	})
}
