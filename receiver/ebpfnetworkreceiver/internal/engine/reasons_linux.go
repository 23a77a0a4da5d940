package engine

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/cilium/ebpf/btf"
)

// reasons are the names of the running kernel's drop reasons, which differ from version to version.
type reasons map[uint32]string

func readReasons(kernel *btf.Spec) (reasons, error) {
	var enum *btf.Enum
	if err := kernel.TypeByName("skb_drop_reason", &enum); err != nil {
		return nil, fmt.Errorf("the kernel does not name the reasons of drops: %w", err)
	}
	names := make(reasons, len(enum.Values))
	for _, v := range enum.Values {
		if name, ok := strings.CutPrefix(v.Name, "SKB_DROP_REASON_"); ok {
			names[uint32(v.Value)] = strings.ToLower(name)
		}
	}
	return names, nil
}

// name returns no_socket for SKB_DROP_REASON_NO_SOCKET, and the number of a reason that a module has added.
func (r reasons) name(reason uint32) string {
	if name, ok := r[reason]; ok {
		return name
	}
	return strconv.FormatUint(uint64(reason), 10)
}

// tracepointArguments returns how many arguments a tracepoint has.
func tracepointArguments(kernel *btf.Spec, name string) (int, error) {
	var probe *btf.Typedef
	if err := kernel.TypeByName("btf_trace_"+name, &probe); err != nil {
		return 0, fmt.Errorf("the kernel has no tracepoint %s: %w", name, err)
	}
	if ptr, ok := probe.Type.(*btf.Pointer); ok {
		if proto, ok := ptr.Target.(*btf.FuncProto); ok {
			return len(proto.Params) - 1, nil // the first is the probe's own
		}
	}
	return 0, fmt.Errorf("the kernel describes the tracepoint %s as %v, not as a function", name, probe.Type)
}
