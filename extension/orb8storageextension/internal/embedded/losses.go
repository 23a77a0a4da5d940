package embedded

import (
	"slices"

	"github.com/orb8/orb8/internal/storage"
)

// maxSpans bounds the history of a node that loses something in every interval: at 10 s intervals, 2.8 hours stay
// exact, and what is older is known in coarser steps.
const maxSpans = 1024

// span is a loss that happened somewhere from from to to, both in nanoseconds since the epoch.
type span struct {
	from, to int64
	loss     storage.Loss
}

// losses is a history of losses, oldest first.
type losses struct {
	spans []span
}

func (l *losses) add(s span) {
	if s.loss == (storage.Loss{}) {
		return
	}
	if len(l.spans) == maxSpans {
		first, second := l.spans[0], l.spans[1]
		l.spans[1] = span{
			from: min(first.from, second.from),
			to:   max(first.to, second.to),
			loss: first.loss.Add(second.loss),
		}
		l.spans = slices.Delete(l.spans, 0, 1)
	}
	l.spans = append(l.spans, s)
}

// in sums the losses that may have happened in [since, until).
func (l *losses) in(since, until int64) storage.Loss {
	var sum storage.Loss
	for _, s := range l.spans {
		if s.to >= since && s.from < until {
			sum = sum.Add(s.loss)
		}
	}
	return sum
}

// expire forgets the losses before an instant.
func (l *losses) expire(before int64) {
	for len(l.spans) > 0 && l.spans[0].to < before {
		l.spans = slices.Delete(l.spans, 0, 1)
	}
}
