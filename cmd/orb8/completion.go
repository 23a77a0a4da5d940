package main

func (f *filterFlags) completeEnds()  {}
func (f *filterFlags) completePods()  {}
func (f *filterFlags) completeNodes() {}
