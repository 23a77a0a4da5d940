//go:build linux && cgo

package nvml

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/dl"
	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

// library is NVML, loaded. Calls of functions that it lacks would end this process: it is asked for each of them first.
type library struct {
	nvml.Interface
	path string
	has  map[string]bool

	gpus map[int]*gpu // by index
	// known are the GPUs that were ever read, by index: one that is lost can still be named.
	known map[int]Device

	// What follows is of the goroutine that waits for events, once there is one.
	set nvml.EventSet
	// watched are the GPUs that tell events, with what identifies them.
	watched map[nvml.Device]gpuName
	// instances tells whether events say of which MIG instance they are.
	instances bool
}

type gpuName struct{ uuid, pci string }

// newOpener returns a function that loads the first library that is there, and initialises it. It loads each one once: functions are bound
// to the process when they are first called, and the loader keeps the library from then on.
func newOpener() func(paths []string) (driver, error) {
	loaded, known := map[string]nvml.Interface{}, map[int]Device{}
	return func(paths []string) (driver, error) {
		path, err := find(paths)
		if err != nil {
			return nil, err
		}
		if loaded[path] == nil {
			loaded[path] = nvml.New(nvml.WithLibraryPath(path))
		}
		l := &library{
			Interface: loaded[path], path: path, has: map[string]bool{}, gpus: map[int]*gpu{}, known: known,
			watched: map[nvml.Device]gpuName{},
		}
		if ret := l.Init(); ret != nvml.SUCCESS {
			return nil, l.initError(ret)
		}
		l.register()
		return l, nil
	}
}

// find returns the first path that holds a library of NVML's functions. What is in the system's search has a name without a slash.
func find(paths []string) (string, error) {
	var wrong []string
	for _, path := range paths {
		lib := dl.New(path, dl.RTLD_LAZY|dl.RTLD_LOCAL)
		err := lib.Open()
		if err == nil {
			err = errors.Join(lib.Lookup("nvmlInit_v2"), lib.Lookup("nvmlShutdown"), lib.Lookup("nvmlErrorString"))
			if closeErr := lib.Close(); err == nil && closeErr == nil {
				return path, nil
			}
		}
		if !strings.Contains(err.Error(), "No such file or directory") {
			wrong = append(wrong, strings.ReplaceAll(err.Error(), "\n", "; "))
		}
	}
	if len(wrong) > 0 {
		return "", fmt.Errorf("cannot load NVIDIA's NVML: %s", strings.Join(wrong, "; "))
	}
	return "", fmt.Errorf("%w: no libnvidia-ml.so.1 in %d places (nvml.library_paths): the host has no NVIDIA driver, or its library is not in this container",
		ErrAbsent, len(paths))
}

// initError says what a host lacks, and the way out.
func (l *library) initError(ret nvml.Return) error {
	switch ret {
	case nvml.ERROR_DRIVER_NOT_LOADED:
		return fmt.Errorf("%w: %s is there, and NVIDIA's driver is not loaded (modprobe nvidia)", ErrAbsent, l.path)
	case nvml.ERROR_NO_PERMISSION:
		return fmt.Errorf("cannot initialise NVML: no permission to open /dev/nvidiactl: a container needs the GPUs' devices, as by NVIDIA_VISIBLE_DEVICES=all")
	case nvml.ERROR_LIB_RM_VERSION_MISMATCH:
		return fmt.Errorf("cannot initialise NVML: %s is of another version than the driver, which was replaced: restart the collector", l.path)
	}
	return fmt.Errorf("cannot initialise NVML: %s", text(ret))
}

// text is what the library calls an error; its numbers are NVIDIA's.
func text(ret nvml.Return) string { return fmt.Sprintf("%s (%d)", ret.Error(), int(ret)) }

// can tells whether the library has a function, under one of its names.
func (l *library) can(names ...string) bool {
	return slices.ContainsFunc(names, func(name string) bool {
		has, known := l.has[name]
		if !known {
			has = l.Extensions().LookupSymbol(name) == nil
			l.has[name] = has
		}
		return has
	})
}

// gone tells whether the driver as such is.
func gone(ret nvml.Return) bool {
	return ret == nvml.ERROR_UNINITIALIZED || ret == nvml.ERROR_DRIVER_NOT_LOADED || ret == nvml.ERROR_LIB_RM_VERSION_MISMATCH
}

func (l *library) close() error {
	if l.set != nil {
		l.set.Free()
	}
	for _, g := range l.gpus {
		g.free()
	}
	if ret := l.Shutdown(); ret != nvml.SUCCESS && !gone(ret) {
		return errors.New(text(ret))
	}
	return nil
}

// register asks for events. GPUs that are not to be read, or tell none, are left out.
func (l *library) register() {
	if !l.can("nvmlEventSetCreate") || !l.can("nvmlEventSetWait_v2", "nvmlEventSetWait") || !l.can("nvmlDeviceRegisterEvents") {
		return
	}
	set, ret := l.EventSetCreate()
	if ret != nvml.SUCCESS {
		return
	}
	l.set, l.instances = set, l.can("nvmlEventSetWait_v2")
	count, _ := l.DeviceGetCount()
	for i := range count {
		d, ret := l.DeviceGetHandleByIndex(i)
		if ret != nvml.SUCCESS {
			continue
		}
		types := uint64(nvml.EventTypeXidCriticalError | nvml.EventTypeDoubleBitEccError)
		if supported, ret := d.GetSupportedEventTypes(); ret == nvml.SUCCESS {
			types &= supported
		}
		if types != 0 && d.RegisterEvents(types, set) == nvml.SUCCESS {
			uuid, _ := d.GetUUID()
			pci, _ := d.GetPciInfo()
			l.watched[d] = gpuName{uuid, cString(pci.BusId[:])}
		}
	}
}

func (l *library) wait(timeout time.Duration) (*Event, error) {
	if len(l.watched) == 0 {
		return nil, errors.New("no GPU tells of its errors")
	}
	data, ret := l.set.Wait(uint32(timeout.Milliseconds()))
	switch ret {
	case nvml.SUCCESS:
	case nvml.ERROR_TIMEOUT:
		return nil, nil
	default:
		return nil, errors.New(text(ret))
	}
	e := &Event{Time: time.Now(), GPUInstance: None, ComputeInstance: None}
	switch data.EventType {
	case nvml.EventTypeXidCriticalError:
		e.Type, e.Code = XID, data.EventData
	case nvml.EventTypeDoubleBitEccError:
		e.Type = DoubleBitECC
	default:
		return nil, nil
	}
	if l.instances {
		e.GPUInstance, e.ComputeInstance = data.GpuInstanceId, data.ComputeInstanceId
	}
	// A GPU that fell off its bus does not say its name any more.
	name := l.watched[data.Device]
	e.UUID, e.PCI = name.uuid, name.pci
	return e, nil
}
