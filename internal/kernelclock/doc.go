// Package kernelclock tells when it was that a BPF program saw something.
package kernelclock
