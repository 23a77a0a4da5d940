// Calls functions of libraries: LIBRARY... are its arguments, and each line of its input is FUNCTION CALLS THREADS and the function's
// arguments. It answers each with a line: how long it took, and the processor's time of that in the first thread,
// in nanoseconds. The functions "copy2d" and "copy3d" make the struct of a copy from host to GPU of the
// given extent; "fork" has a child for each call, that runs this program again to call cuLaunchKernel once.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

typedef long (*function)(size_t, size_t, size_t, size_t, size_t);

struct work {
	function f;
	long calls;
	size_t arguments[5];
};

static void *work(void *p)
{
	struct work *w = p;
	size_t *a = w->arguments;
	for (long i = 0; i < w->calls; i++)
		w->f(a[0], a[1], a[2], a[3], a[4]);
	return NULL;
}

static function find(void **libraries, int n, const char *name)
{
	for (int i = 0; i < n; i++) {
		function f = (function)dlsym(libraries[i], name);
		if (f)
			return f;
	}
	fprintf(stderr, "no %s\n", name);
	exit(1);
}

static long between(const struct timespec *from, const struct timespec *to)
{
	return (to->tv_sec - from->tv_sec) * 1000000000L + to->tv_nsec - from->tv_nsec;
}

int main(int argc, char **argv)
{
	void *libraries[8];
	int n = argc - 1;
	for (int i = 0; i < n; i++) {
		libraries[i] = dlopen(argv[i + 1], RTLD_NOW | RTLD_LOCAL);
		if (!libraries[i]) {
			fprintf(stderr, "%s\n", dlerror());
			return 1;
		}
	}
	if (getenv("ONCE")) {
		find(libraries, n, "cuLaunchKernel")(0, 0, 0, 0, 0);
		return 0;
	}
	puts("ready");
	fflush(stdout);
	char name[64];
	struct work w;
	int threads;
	while (scanf("%63s %ld %d %zu %zu %zu %zu %zu", name, &w.calls, &threads, &w.arguments[0], &w.arguments[1], &w.arguments[2], &w.arguments[3], &w.arguments[4]) == 8) {
		size_t copy[25] = {0};
		struct timespec from, to, cpu_from, cpu_to;
		if (!strcmp(name, "fork")) {
			setenv("ONCE", "1", 1);
			for (long i = 0; i < w.calls; i++) {
				if (!fork()) {
					execv("/proc/self/exe", argv);
					_exit(1);
				}
				if (i % 8 == 7)
					while (wait(NULL) > 0)
						;
			}
			while (wait(NULL) > 0)
				;
			unsetenv("ONCE");
			puts("0 0");
			fflush(stdout);
			continue;
		}
		if (!strcmp(name, "copy2d")) {
			copy[2] = 1, copy[9] = 2, copy[14] = w.arguments[0], copy[15] = w.arguments[1];
			strcpy(name, "cuMemcpy2D_v2");
			w.arguments[0] = (size_t)copy;
		} else if (!strcmp(name, "copy3d")) {
			copy[4] = 1, copy[15] = 3, copy[22] = w.arguments[0], copy[23] = w.arguments[1], copy[24] = w.arguments[2];
			strcpy(name, "cuMemcpy3D_v2");
			w.arguments[0] = (size_t)copy;
		}
		w.f = find(libraries, n, name);
		pthread_t t[64];
		clock_gettime(CLOCK_MONOTONIC, &from);
		clock_gettime(CLOCK_THREAD_CPUTIME_ID, &cpu_from);
		for (int i = 1; i < threads; i++)
			pthread_create(&t[i], NULL, work, &w);
		work(&w);
		for (int i = 1; i < threads; i++)
			pthread_join(t[i], NULL);
		clock_gettime(CLOCK_THREAD_CPUTIME_ID, &cpu_to);
		clock_gettime(CLOCK_MONOTONIC, &to);
		printf("%ld %ld\n", between(&from, &to), between(&cpu_from, &cpu_to));
		fflush(stdout);
	}
	return 0;
}
