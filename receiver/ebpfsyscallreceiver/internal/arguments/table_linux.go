package arguments

// parameter is one of a call's parameters. The zero value is one that tells nobody anything: it is left out.
type parameter struct {
	name string // as in the manual page
	kind kind
}

var (
	openMode   = mixed{accessModes, 3, openFlags}
	mapMode    = mixed{sharing, 0xf, mapFlags}
	socketMode = mixed{socketTypes, 0xf, socketFlags}
	fd         = parameter{"fd", number}
	dirfd      = parameter{"dirfd", directory}
	sockfd     = parameter{"sockfd", number}
	pidfd      = parameter{"pidfd", number}
	pid        = parameter{"pid", number}
	path       = parameter{"path", text{}}
	pathname   = parameter{"pathname", text{}}
	length     = parameter{"length", size}
	count      = parameter{"count", size}
	fileMode   = parameter{"mode", mode}
	device     = parameter{"dev", mask}
	user       = parameter{"owner", owner}
	group      = parameter{"group", owner}
	atFlags    = parameter{"flags", pathFlags}
)

// table has the parameters of the calls whose arguments matter, in their order: those of the native ABIs, in which x86-64 and
// arm64 agree. Of one of them the kernel captures what it points to; other pointers are left out, and so is what is not always
// given, such as the mode of open(2).
var table = map[string][]parameter{
	// Files.
	"access":            {pathname, {"mode", accessFlags}},
	"acct":              {{"filename", text{}}},
	"chdir":             {path},
	"chmod":             {pathname, fileMode},
	"chown":             {pathname, user, group},
	"chroot":            {path},
	"close":             {fd},
	"close_range":       {{"first", number}, {"last", number}, {"flags", closeRangeFlags}},
	"copy_file_range":   {{"fd_in", number}, {}, {"fd_out", number}, {}, {"len", size}},
	"creat":             {pathname, fileMode},
	"dup":               {{"oldfd", number}},
	"dup2":              {{"oldfd", number}, {"newfd", number}},
	"dup3":              {{"oldfd", number}, {"newfd", number}, {"flags", fileFlags}},
	"faccessat":         {dirfd, pathname, {"mode", accessFlags}},
	"faccessat2":        {dirfd, pathname, {"mode", accessFlags}, {"flags", accessAtFlags}},
	"fallocate":         {fd, {"mode", mask}, {"offset", size}, {"len", size}},
	"fanotify_init":     {{"flags", mask}, {"event_f_flags", openMode}},
	"fanotify_mark":     {{"fanotify_fd", number}, {"flags", mask}, {"mask", mask}, dirfd, pathname},
	"fchdir":            {fd},
	"fchmod":            {fd, fileMode},
	"fchmodat":          {dirfd, pathname, fileMode},
	"fchmodat2":         {dirfd, pathname, fileMode, atFlags},
	"fchown":            {fd, user, group},
	"fchownat":          {dirfd, pathname, user, group, atFlags},
	"fcntl":             {fd, {"cmd", fcntlCommands}, {"arg", mask}},
	"fdatasync":         {fd},
	"fsync":             {fd},
	"ftruncate":         {fd, length},
	"fremovexattr":      {fd, {"name", text{}}},
	"fsetxattr":         {fd, {"name", text{}}, {}, {"size", size}},
	"inotify_add_watch": {fd, pathname, {"mask", mask}},
	"ioctl":             {fd, {"request", ioctlRequests}},
	"lchown":            {pathname, user, group},
	"link":              {{"oldpath", text{}}},
	"linkat":            {{"olddirfd", directory}, {"oldpath", text{}}, {"newdirfd", directory}, {}, atFlags},
	"lremovexattr":      {path},
	"lsetxattr":         {path, {}, {}, {"size", size}},
	"lstat":             {pathname},
	"mkdir":             {pathname, fileMode},
	"mkdirat":           {dirfd, pathname, fileMode},
	"mknod":             {pathname, fileMode, device},
	"mknodat":           {dirfd, pathname, fileMode, device},
	"name_to_handle_at": {dirfd, pathname, {}, {}, atFlags},
	"newfstatat":        {dirfd, pathname, {}, atFlags},
	"open":              {pathname, {"flags", openMode}},
	"open_by_handle_at": {{"mount_fd", number}, {}, {"flags", openMode}},
	"openat":            {dirfd, pathname, {"flags", openMode}},
	"openat2":           {dirfd, pathname, {}, {"size", size}},
	"read":              {fd, {}, count},
	"readlink":          {pathname},
	"readlinkat":        {dirfd, pathname},
	"removexattr":       {path},
	"rename":            {{"oldpath", text{}}},
	"renameat":          {{"olddirfd", directory}, {"oldpath", text{}}, {"newdirfd", directory}},
	"renameat2":         {{"olddirfd", directory}, {"oldpath", text{}}, {"newdirfd", directory}, {}, {"flags", renameFlags}},
	"rmdir":             {pathname},
	"sendfile":          {{"out_fd", number}, {"in_fd", number}, {}, count},
	"setxattr":          {path, {}, {}, {"size", size}},
	"stat":              {pathname},
	"statfs":            {path},
	"statx":             {dirfd, pathname, atFlags, {"mask", mask}},
	"symlink":           {{"target", text{}}},
	"symlinkat":         {{"target", text{}}, {"newdirfd", directory}},
	"truncate":          {path, length},
	"unlink":            {pathname},
	"unlinkat":          {dirfd, pathname, {"flags", unlinkFlags}},
	"utimensat":         {dirfd, pathname, {}, atFlags},
	"write":             {fd, {}, count},

	// File systems.
	"fsconfig":      {fd, {"cmd", fsconfigCommands}, {"key", text{}}},
	"fsmount":       {{"fsfd", number}, {"flags", fsmountFlags}, {"mount_attrs", mask}},
	"fsopen":        {{"fsname", text{}}, {"flags", fsopenFlags}},
	"fspick":        {dirfd, path, {"flags", mask}},
	"mount":         {{"source", text{}}, {}, {}, {"mountflags", mountFlags}},
	"mount_setattr": {dirfd, path, {"flags", pathFlags}},
	"move_mount": {
		{"from_dirfd", directory}, {"from_path", text{}}, {"to_dirfd", directory}, {}, {"flags", moveMountFlags},
	},
	"open_tree":  {dirfd, path, {"flags", mountTreeFlags}},
	"pivot_root": {{"new_root", text{}}},
	"swapoff":    {path},
	"swapon":     {path, {"swapflags", mask}},
	"umount2":    {{"target", text{}}, {"flags", umountFlags}},

	// Processes.
	"clone":             {{"flags", cloneCall}},
	"clone3":            {{}, {"size", size}},
	"execve":            {pathname},
	"execveat":          {dirfd, pathname, {}, {}, atFlags},
	"exit":              {{"status", number}},
	"exit_group":        {{"status", number}},
	"kcmp":              {{"pid1", number}, {"pid2", number}, {"type", number}},
	"kill":              {pid, {"sig", signal}},
	"personality":       {{"persona", mask}},
	"pidfd_getfd":       {pidfd, {"targetfd", number}, {"flags", mask}},
	"pidfd_open":        {pid, {"flags", mask}},
	"pidfd_send_signal": {pidfd, {"sig", signal}},
	"prctl":             {{"option", prctlOptions}, {"arg2", mask}},
	"prlimit64":         {pid, {"resource", resources}},
	"process_madvise":   {pidfd, {}, {"vlen", size}, {"advice", number}},
	"process_vm_readv":  {pid, {}, {"liovcnt", size}, {}, {"riovcnt", size}},
	"process_vm_writev": {pid, {}, {"liovcnt", size}, {}, {"riovcnt", size}},
	"ptrace":            {{"request", ptraceRequests}, pid, {"addr", address}, {"data", mask}},
	"rt_sigqueueinfo":   {{"tgid", number}, {"sig", signal}},
	"rt_tgsigqueueinfo": {{"tgid", number}, {"tid", number}, {"sig", signal}},
	"seccomp":           {{"operation", seccompOperations}, {"flags", seccompFlags}},
	"setns":             {fd, {"nstype", namespaceFlags}},
	"setpgid":           {pid, {"pgid", number}},
	"tgkill":            {{"tgid", number}, {"tid", number}, {"sig", signal}},
	"tkill":             {{"tid", number}, {"sig", signal}},
	"unshare":           {{"flags", namespaceFlags}},
	"wait4":             {pid, {}, {"options", waitFlags}},

	// Users and groups.
	"setfsgid":  {{"fsgid", owner}},
	"setfsuid":  {{"fsuid", owner}},
	"setgid":    {{"gid", owner}},
	"setgroups": {{"size", size}},
	"setregid":  {{"rgid", owner}, {"egid", owner}},
	"setresgid": {{"rgid", owner}, {"egid", owner}, {"sgid", owner}},
	"setresuid": {{"ruid", owner}, {"euid", owner}, {"suid", owner}},
	"setreuid":  {{"ruid", owner}, {"euid", owner}},
	"setuid":    {{"uid", owner}},

	// Memory.
	"memfd_create":  {{"name", text{}}, {"flags", memfdFlags}},
	"memfd_secret":  {{"flags", fileFlags}},
	"mmap":          {{"addr", address}, length, {"prot", protection}, {"flags", mapMode}, fd, {"offset", size}},
	"mprotect":      {{"addr", address}, {"len", size}, {"prot", protection}},
	"munmap":        {{"addr", address}, length},
	"pkey_mprotect": {{"addr", address}, {"len", size}, {"prot", protection}, {"pkey", number}},
	"userfaultfd":   {{"flags", fileFlags}},

	// Sockets.
	"accept":     {sockfd},
	"accept4":    {sockfd, {}, {}, {"flags", socketFlags}},
	"bind":       {sockfd, {"addr", socketAddress{}}},
	"connect":    {sockfd, {"addr", socketAddress{}}},
	"getsockopt": {sockfd, {"level", socketLevels}, {"optname", number}},
	"listen":     {sockfd, {"backlog", number}},
	"recvfrom":   {sockfd, {}, {"len", size}, {"flags", messageFlags}},
	"recvmsg":    {sockfd, {}, {"flags", messageFlags}},
	"sendmsg":    {sockfd, {}, {"flags", messageFlags}},
	"sendto":     {sockfd, {}, {"len", size}, {"flags", messageFlags}, {"dest_addr", socketAddress{}}},
	"setsockopt": {sockfd, {"level", socketLevels}, {"optname", number}},
	"shutdown":   {sockfd, {"how", shutdownHows}},
	"socket":     {{"domain", addressFamilies}, {"type", socketMode}, {"protocol", number}},
	"socketpair": {{"domain", addressFamilies}, {"type", socketMode}, {"protocol", number}},

	// The kernel.
	"add_key":         {{"type", text{}}, {}, {}, {"plen", size}, {"keyring", number}},
	"bpf":             {{"cmd", bpfCommands}, {}, {"size", size}},
	"clock_settime":   {{"clockid", clocks}},
	"delete_module":   {{"name", text{}}, {"flags", fileFlags}},
	"finit_module":    {fd, {"param_values", text{}}, {"flags", moduleFlags}},
	"init_module":     {{}, {"len", size}, {"param_values", text{}}},
	"io_uring_setup":  {{"entries", size}},
	"ioperm":          {{"from", size}, {"num", size}, {"turn_on", number}},
	"iopl":            {{"level", number}},
	"kexec_file_load": {{"kernel_fd", number}, {"initrd_fd", number}, {}, {"cmdline", text{}}, {"flags", kexecFileFlags}},
	"kexec_load":      {{"entry", address}, {"nr_segments", size}, {}, {"flags", kexecFlags}},
	"keyctl":          {{"operation", keyctlOperations}, {"arg2", number}},
	"perf_event_open": {{}, pid, {"cpu", number}, {"group_fd", number}, {"flags", perfFlags}},
	"reboot":          {{}, {}, {"op", rebootCommands}},
	"request_key":     {{"type", text{}}},
	"setdomainname":   {{}, {"len", size}},
	"sethostname":     {{}, {"len", size}},
	"syslog":          {{"type", number}},
}
