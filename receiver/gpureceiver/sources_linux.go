package gpureceiver

// addSources puts the sources in the order in which they are asked: who measures best comes first, and who knows of containers what
// others have measured last.
func (r *gpuReceiver) addSources() {
	r.add("cuda", r.cfg.CUDA.Mode, r.newCUDASource)
}

// add appends a source, unless it is off. It is made, and not opened yet: the first scrape does that.
func (r *gpuReceiver) add(name string, mode Mode, s func() source) {
	if mode != ModeOff {
		r.sources = append(r.sources, &sourceState{source: s(), name: name, mode: mode})
	}
}
