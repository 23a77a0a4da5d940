// Package ebpfmap reads maps that programs write to in two generations: a global variable says which is current; user space
// flips it, waits until no program can still write to the other one, and then reads and empties that at its leisure.
package ebpfmap
