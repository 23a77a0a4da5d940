package gpureceiver

// addSources puts the sources in the order in which they are asked: who measures best comes first, and who knows of containers what
// others have measured last.
func (r *gpuReceiver) addSources() {
	r.add("nvml", r.cfg.NVML.Mode, func() source { return newNVMLSource(&r.cfg.NVML, r.events) })
	r.add("dcgm", r.cfg.DCGM.Mode, r.newDCGMSource)
	r.add("cuda", r.cfg.CUDA.Mode, r.newCUDASource)
	r.add("pod_resources", r.cfg.PodResources.Mode, r.newPodResources)
}

// add appends a source, unless it is off. It is made, and not opened yet: the first scrape does that.
func (r *gpuReceiver) add(name string, mode Mode, s func() source) {
	if mode == ModeOff {
		r.off = append(r.off, name)
		return
	}
	r.sources = append(r.sources, &sourceState{source: s(), name: name, mode: mode})
}
