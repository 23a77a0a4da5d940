package main

import "syscall"

// childAttributes has nothing to add: a child is ended when this process is done.
func childAttributes() *syscall.SysProcAttr { return nil }
