package nvml

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Options of a source.
type Options struct {
	// LibraryPaths are tried in their order.
	LibraryPaths []string
	Hold         Hold
	// OnEvent is called for each event, by a goroutine of the source's own. Nil: there are no events.
	OnEvent func(Event)
}

const (
	// minBackoff and maxBackoff are between attempts to open the library: the attempt may load the driver's kernel module, which
	// somebody may be about to replace.
	minBackoff = 10 * time.Second
	maxBackoff = 2 * time.Minute
	// lostRetry is how long NVML stays open over a GPU that is lost: whether it is back is seen by opening it anew.
	lostRetry = time.Minute
	// eventWait is how long one wait for events takes at most, and so the end of the source.
	eventWait = 200 * time.Millisecond
)

// Source takes snapshots. It opens the library when it is first asked, and again after the driver was gone. Snapshot and Close are
// called by one goroutine at a time.
type Source struct {
	opts Options
	open func(paths []string) (driver, error)

	session *session
	// since is when the last snapshot was.
	since time.Time
	// failure is why the library could not be opened; until retryAt it is not tried again.
	failure error
	backoff time.Duration
	retryAt time.Time
	wrapped counters
}

// session is a time in which the library is open.
type session struct {
	driver
	opened time.Time
	// stop ends the goroutine that waits for events; nil where there is none.
	stop chan struct{}
	wg   sync.WaitGroup
}

// New returns a source that has opened nothing yet.
func New(opts Options) *Source {
	return &Source{opts: opts, open: newOpener(), wrapped: counters{}}
}

// Snapshot reads all devices. Its error may come with what could be read; it is ErrAbsent where the host has no driver.
func (s *Source) Snapshot(now time.Time) (*Snapshot, error) {
	if s.session == nil {
		if err := s.reopen(now); err != nil {
			return nil, err
		}
	}
	since := minBackoff
	if !s.since.IsZero() {
		since = now.Sub(s.since)
	}
	snapshot, err := s.session.snapshot(now, since, s.opts.Hold != HoldNever)
	s.since = now
	if errors.Is(err, errLost) {
		// The next one opens it anew.
		s.wrapped.forget()
		return snapshot, errors.Join(err, s.end())
	}
	if snapshot != nil {
		s.wrapped.unwrap(snapshot)
		retry := now.Sub(s.session.opened) >= lostRetry && slices.ContainsFunc(snapshot.Devices, func(d Device) bool { return d.Lost })
		if retry || s.opts.Hold == HoldNever || s.opts.Hold == HoldBusy && !busy(snapshot) {
			err = errors.Join(err, s.end())
		} else {
			s.listen()
		}
	}
	return snapshot, err
}

// reopen opens the library, at most so often.
func (s *Source) reopen(now time.Time) error {
	if s.failure != nil && now.Before(s.retryAt) {
		return s.failure
	}
	d, err := s.open(s.opts.LibraryPaths)
	if err != nil {
		s.backoff = min(max(2*s.backoff, minBackoff), maxBackoff)
		s.retryAt, s.failure = now.Add(s.backoff), err
		return err
	}
	s.backoff, s.failure = 0, nil
	s.session = &session{driver: d, opened: now}
	return nil
}

// busy tells whether somebody uses a GPU.
func busy(snapshot *Snapshot) bool {
	for i := range snapshot.Devices {
		d := &snapshot.Devices[i]
		if len(d.Processes) > 0 {
			return true
		}
		for _, v := range d.Values {
			// Of a container that does not see the processes of the host.
			if v.Metric == "hw.gpu.utilization" && v.Value > 0 {
				return true
			}
		}
	}
	return false
}

// listen waits for events from now on, while the session is open.
func (s *Source) listen() {
	c := s.session
	if s.opts.OnEvent == nil || c.stop != nil {
		return
	}
	c.stop = make(chan struct{})
	c.wg.Add(1)
	go func() {
		defer c.wg.Done()
		for {
			select {
			case <-c.stop:
				return
			default:
			}
			event, err := c.wait(eventWait)
			if err != nil {
				// The next snapshot tells what is wrong.
				return
			}
			if event != nil {
				s.opts.OnEvent(*event)
			}
		}
	}()
}

// end lets the library and the devices go.
func (s *Source) end() error {
	c := s.session
	if c == nil {
		return nil
	}
	s.session = nil
	if c.stop != nil {
		close(c.stop)
	}
	c.wg.Wait()
	if err := c.close(); err != nil {
		return fmt.Errorf("cannot close NVML: %w", err)
	}
	return nil
}

// Close ends the source.
func (s *Source) Close() error { return s.end() }
