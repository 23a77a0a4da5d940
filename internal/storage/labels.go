package storage

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"

	"github.com/orb8/orb8/internal/flow"
)

// LabelSelector selects pods by their labels. The zero value selects all pods.
type LabelSelector struct {
	terms []labelTerm
}

// labelTerm is a labels.Requirement that is compared with flow.Identity.Labels as they are: that would want a set made of them for
// each record.
type labelTerm struct {
	key      string
	operator selection.Operator
	values   []string
}

// ParseLabelSelector takes what kubectl does: "app=web,tier!=cache,env in (a,b),!canary".
func ParseLabelSelector(s string) (LabelSelector, error) {
	requirements, err := labels.ParseToRequirements(s)
	if err != nil {
		return LabelSelector{}, fmt.Errorf("%q is no label selector: %w; use for example app=web,tier!=cache", s, err)
	}
	if len(requirements) == 0 {
		return LabelSelector{}, fmt.Errorf("%q selects every pod; use for example app=web,tier!=cache", s)
	}
	var out LabelSelector
	for _, r := range requirements {
		out.terms = append(out.terms, labelTerm{r.Key(), r.Operator(), slices.Sorted(slices.Values(r.ValuesUnsorted()))})
	}
	return out, nil
}

// Values returns how many comparisons the selector makes at most.
func (s LabelSelector) Values() int {
	n := 0
	for _, t := range s.terms {
		n += 1 + len(t.values)
	}
	return n
}

// Match tells whether it is a pod that has such labels.
func (s LabelSelector) Match(who *flow.Identity) bool {
	if who.Pod == "" && who.PodUID == "" {
		return false
	}
	for i := range s.terms {
		if !s.terms[i].match(who.Labels) {
			return false
		}
	}
	return true
}

func (t *labelTerm) match(all string) bool {
	value, has := flow.Label(all, t.key)
	switch t.operator {
	case selection.In, selection.Equals, selection.DoubleEquals:
		return has && slices.Contains(t.values, value)
	case selection.NotIn, selection.NotEquals:
		return !has || !slices.Contains(t.values, value)
	case selection.Exists:
		return has
	case selection.DoesNotExist:
		return !has
	}
	// Greater or less than a number: the parser has let in one value, which is one.
	number, err := strconv.ParseInt(value, 10, 64)
	bound, boundErr := strconv.ParseInt(strings.Join(t.values, ""), 10, 64)
	if !has || err != nil || boundErr != nil {
		return false
	}
	if t.operator == selection.GreaterThan {
		return number > bound
	}
	return number < bound
}
