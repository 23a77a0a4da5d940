package ebpfsyscallreceiver

import "strings"

// defaultHot are the calls that a web server, a database or a language's runtime makes all the time, thousands a second, and
// that tell little one by one. Those that open something, or make, signal or change a process, are not among them.
func defaultHot() []string {
	return strings.Fields(`
		read readv pread64 preadv preadv2 write writev pwrite64 pwritev pwritev2 close lseek _llseek
		sendfile sendfile64 splice copy_file_range fsync fdatasync fallocate fadvise64 sync_file_range flock
		stat lstat fstat newfstatat statx stat64 lstat64 fstat64 fstatat64 statfs fstatfs access faccessat faccessat2
		readlink readlinkat getdents getdents64 getcwd fcntl fcntl64 ioctl

		poll ppoll ppoll_time64 select _newselect pselect6 pselect6_time64 epoll_wait epoll_pwait epoll_pwait2 epoll_ctl
		recv recvfrom recvmsg recvmmsg recvmmsg_time64 send sendto sendmsg sendmmsg
		accept accept4 shutdown getsockopt setsockopt getsockname getpeername
		io_submit io_getevents io_pgetevents io_uring_enter

		futex futex_time64 futex_wait futex_wake futex_waitv futex_requeue membarrier semop semtimedop
		sched_yield sched_getaffinity getcpu rseq set_robust_list set_tid_address restart_syscall
		mmap mmap2 munmap mremap mprotect madvise mincore msync brk

		nanosleep clock_nanosleep clock_nanosleep_time64 clock_gettime clock_gettime64 clock_getres gettimeofday time times
		timer_settime timerfd_settime timerfd_gettime setitimer getitimer
		rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigsuspend rt_sigtimedwait sigaltstack sigprocmask sigreturn
		tgkill wait4 waitid

		getpid getppid gettid getuid geteuid getgid getegid getresuid getresgid getpgrp getpgid getsid
		getuid32 geteuid32 getgid32 getegid32 getrandom getrlimit prlimit64 getrusage getpriority uname sysinfo umask`)
}

// defaultAlways are the calls that take over another process, a namespace, a mount or the kernel, or start a program.
func defaultAlways() []string {
	return strings.Fields(`
		execve execveat memfd_create memfd_secret ptrace process_vm_readv process_vm_writev pidfd_getfd kcmp
		mount umount umount2 pivot_root chroot move_mount open_tree fsopen fsmount fspick mount_setattr setns unshare
		bpf perf_event_open userfaultfd init_module finit_module delete_module kexec_load kexec_file_load
		open_by_handle_at keyctl add_key request_key iopl ioperm reboot swapon swapoff acct syslog
		settimeofday clock_settime sethostname setdomainname quotactl personality seccomp`)
}
