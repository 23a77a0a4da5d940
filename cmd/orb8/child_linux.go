package main

import "syscall"

// childAttributes let a child end with this process, however that ends, and keep the terminal's Ctrl-C from it: this process ends it
// when it is done.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
