package cgroup

import (
	"encoding/binary"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// watcher reads from inotify what directories are made and removed. It is not safe for concurrent use, except that
// read may run at the same time as everything else and is ended by close.
type watcher struct {
	file  *os.File
	paths map[int32]string
	ids   map[string]int32
	buf   [64 << 10]byte
}

// change is what happened to a directory. If lost is set there were more changes than inotify could hold, and which
// directories exist must be found out anew.
type change struct {
	path string
	made bool
	lost bool
}

func newWatcher() (*watcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("inotify_init1: %w; raise fs.inotify.max_user_instances", err)
	}
	// Non-blocking, so that the file is polled and close ends a read.
	return &watcher{file: os.NewFile(uintptr(fd), "inotify"), paths: map[int32]string{}, ids: map[string]int32{}}, nil
}

// add watches the directory at full, which is called path in changes.
func (w *watcher) add(full, path string) error {
	var wd int
	err := w.control(func(fd int) (err error) {
		wd, err = unix.InotifyAddWatch(fd, full, unix.IN_CREATE|unix.IN_DELETE|unix.IN_ONLYDIR)
		return err
	})
	if err != nil {
		return fmt.Errorf("inotify_add_watch %s: %w; raise fs.inotify.max_user_watches", full, err)
	}
	if old, ok := w.ids[path]; ok && old != int32(wd) {
		w.remove(path)
	}
	w.paths[int32(wd)] = path
	w.ids[path] = int32(wd)
	return nil
}

// remove ends the watch of a directory that is gone. The kernel does not end it by itself, because kernfs keeps the
// link count of a removed directory above zero.
func (w *watcher) remove(path string) {
	wd, ok := w.ids[path]
	if !ok {
		return
	}
	delete(w.ids, path)
	delete(w.paths, wd)
	// On other file systems, or in later kernels, the watch has ended already.
	_ = w.control(func(fd int) error {
		_, err := unix.InotifyRmWatch(fd, uint32(wd))
		return err
	})
}

func (w *watcher) control(f func(fd int) error) error {
	conn, err := w.file.SyscallConn()
	if err != nil {
		return err
	}
	ctlErr := conn.Control(func(fd uintptr) { err = f(int(fd)) })
	if ctlErr != nil {
		return ctlErr
	}
	return err
}

// read waits for events and returns them as the kernel wrote them, until the watcher is closed.
func (w *watcher) read() ([]byte, error) {
	n, err := w.file.Read(w.buf[:])
	return w.buf[:n], err
}

// decode yields the changes that events tell of; see inotify(7).
func (w *watcher) decode(events []byte, yield func(change)) {
	for len(events) >= unix.SizeofInotifyEvent {
		wd := int32(binary.NativeEndian.Uint32(events))
		mask := binary.NativeEndian.Uint32(events[4:])
		size := uint64(unix.SizeofInotifyEvent) + uint64(binary.NativeEndian.Uint32(events[12:]))
		if size > uint64(len(events)) {
			return
		}
		name := strings.TrimRight(string(events[unix.SizeofInotifyEvent:size]), "\x00")
		events = events[size:]
		if mask&unix.IN_Q_OVERFLOW != 0 {
			yield(change{lost: true})
			continue
		}
		parent, ok := w.paths[wd]
		if !ok || mask&unix.IN_ISDIR == 0 {
			continue
		}
		yield(change{path: join(parent, name), made: mask&unix.IN_CREATE != 0})
	}
}

func (w *watcher) close() error { return w.file.Close() }

// join appends a directory's name to a path that begins with a slash.
func join(parent, name string) string {
	if parent == "/" {
		return parent + name
	}
	return parent + "/" + name
}
