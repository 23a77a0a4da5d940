// A library with the functions of NVIDIA's NVML, whose GPUs are those of a file: $ORB8_FAKE_NVML. When it has changed, it is read again as
// the library is initialised, the GPUs are counted or events are waited for, so that GPUs and drivers come and go as the test wants it. nvml.h, of the Go binding, has the layouts.
//
// A line of the file is "KEY VALUE", of the driver at first, then of the device whose line "device INDEX" or "instance" (a MIG instance of
// the GPU before it) is above it. What a device has no value for it does not support; "!N" is the answer N instead of a value.
#define NVML_NO_UNVERSIONED_FUNC_DEFS 1
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <nvml.h>

#define MAX_KEYS 512
#define MAX_DEVICES 64
#define MAX_EVENTS 4096

struct value {
	char key[40], text[120];
};

struct nvmlDevice_st {
	int gpu, instance; // instance is -1 of a GPU
	int count;
	struct value values[MAX_KEYS];
};

struct nvmlEventSet_st {
	int next;
};

struct nvmlGpmSample_st {
	struct nvmlDevice_st *device;
	int gi;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct nvmlDevice_st driver, devices[MAX_DEVICES];
static int count, open_sessions, samples;
static struct timespec changed;
static ino_t inode;
static char read_path[4096];
// Events of one path are only added to: each is told once, whichever file is there.
static struct {
	int gpu;
	unsigned long long type, data;
	unsigned gi, ci;
} events[MAX_EVENTS];
static int event_count, told;

// account tells a test what is taken and not given back: sessions and samples of GPM, in $ORB8_FAKE_NVML.held. The caller holds the lock.
static void account(void)
{
	char path[4096];
	const char *gpus = getenv("ORB8_FAKE_NVML");
	snprintf(path, sizeof(path), "%s.held", gpus ? gpus : "");
	FILE *f = gpus ? fopen(path, "w") : NULL;
	if (!f)
		return;
	fprintf(f, "%d %d\n", open_sessions, samples);
	fclose(f);
}

static void put(struct nvmlDevice_st *d, const char *key, const char *text)
{
	if (d->count == MAX_KEYS)
		abort();
	struct value *v = &d->values[d->count++];
	snprintf(v->key, sizeof(v->key), "%s", key);
	snprintf(v->text, sizeof(v->text), "%s", text);
}

// refresh reads the file if it is another one. The caller holds the lock.
static void refresh(void)
{
	const char *path = getenv("ORB8_FAKE_NVML");
	struct stat st;
	if (!path || stat(path, &st) || (!strcmp(path, read_path) && st.st_ino == inode && st.st_mtim.tv_sec == changed.tv_sec && st.st_mtim.tv_nsec == changed.tv_nsec))
		return;
	FILE *f = fopen(path, "r");
	if (!f)
		return;
	if (strcmp(path, read_path))
		told = 0;
	snprintf(read_path, sizeof(read_path), "%s", path);
	inode = st.st_ino;
	changed = st.st_mtim;
	driver.count = count = event_count = 0;
	struct nvmlDevice_st *d = &driver;
	int gpu = -1, instance = 0;
	char line[256];
	while (fgets(line, sizeof(line), f)) {
		char key[40], text[120] = "";
		line[strcspn(line, "\n")] = 0;
		if (line[0] == '#' || sscanf(line, "%39s %119[^\n]", key, text) < 1)
			continue;
		if (!strcmp(key, "event")) {
			if (event_count < MAX_EVENTS &&
			    sscanf(text, "%d %llu %llu %u %u", &events[event_count].gpu, &events[event_count].type, &events[event_count].data,
				   &events[event_count].gi, &events[event_count].ci) == 5)
				event_count++;
		} else if (!strcmp(key, "device") || !strcmp(key, "instance")) {
			if (count == MAX_DEVICES)
				abort();
			d = &devices[count++];
			d->count = 0;
			if (key[0] == 'd') {
				gpu = atoi(text);
				instance = 0;
				d->instance = -1;
			} else {
				d->instance = instance++;
			}
			d->gpu = gpu;
		} else {
			put(d, key, text);
		}
	}
	fclose(f);
}

static const char *find(struct nvmlDevice_st *d, const char *key)
{
	for (int i = 0; i < d->count; i++)
		if (!strcmp(d->values[i].key, key))
			return d->values[i].text;
	return NULL;
}

static nvmlReturn_t text_of(struct nvmlDevice_st *d, const char *key, const char **text)
{
	const char *t = find(d, key);
	if (!t)
		return NVML_ERROR_NOT_SUPPORTED;
	if (*t == '!')
		return (nvmlReturn_t)atoi(t + 1);
	*text = t;
	return NVML_SUCCESS;
}

static nvmlReturn_t number_of(struct nvmlDevice_st *d, const char *key, double *n)
{
	const char *t;
	nvmlReturn_t ret = text_of(d, key, &t);
	if (ret == NVML_SUCCESS)
		*n = strtod(t, NULL);
	return ret;
}

// state is what every call answers first: "init N" of the driver, "lost 1" of a GPU.
static nvmlReturn_t state(struct nvmlDevice_st *d)
{
	double n;
	if (open_sessions == 0)
		return NVML_ERROR_UNINITIALIZED;
	if (number_of(&driver, "init", &n) == NVML_SUCCESS && n != 0)
		return (nvmlReturn_t)n;
	if (d && number_of(d, "lost", &n) == NVML_SUCCESS && n != 0)
		return NVML_ERROR_GPU_IS_LOST;
	return NVML_SUCCESS;
}

#define ENTER(d)                                                                                                                                    \
	pthread_mutex_lock(&lock);                                                                                                                   \
	nvmlReturn_t ret = state(d);
#define LEAVE                                                                                                                                       \
	pthread_mutex_unlock(&lock);                                                                                                                 \
	return ret;

static nvmlReturn_t number(struct nvmlDevice_st *d, const char *key, double *n)
{
	ENTER(d)
	if (ret == NVML_SUCCESS)
		ret = number_of(d, key, n);
	LEAVE
}

static nvmlReturn_t words(struct nvmlDevice_st *d, const char *key, char *to, unsigned length)
{
	ENTER(d)
	const char *t;
	if (ret == NVML_SUCCESS && (ret = text_of(d, key, &t)) == NVML_SUCCESS)
		snprintf(to, length, "%s", t);
	LEAVE
}

// list returns several numbers of one line.
static nvmlReturn_t list(struct nvmlDevice_st *d, const char *key, unsigned long long *n, int wanted)
{
	ENTER(d)
	const char *t;
	if (ret == NVML_SUCCESS && (ret = text_of(d, key, &t)) == NVML_SUCCESS)
		for (int i = 0; i < wanted; i++)
			n[i] = strtoull(t, (char **)&t, 10);
	LEAVE
}

nvmlReturn_t nvmlInit_v2(void)
{
	pthread_mutex_lock(&lock);
	refresh();
	double n = 0;
	number_of(&driver, "init", &n);
	if (n == 0)
		open_sessions++;
	account();
	pthread_mutex_unlock(&lock);
	return (nvmlReturn_t)n;
}

nvmlReturn_t nvmlShutdown(void)
{
	pthread_mutex_lock(&lock);
	nvmlReturn_t ret = NVML_ERROR_UNINITIALIZED;
	if (open_sessions > 0) {
		open_sessions--;
		ret = NVML_SUCCESS;
	}
	account();
	LEAVE
}

const char *nvmlErrorString(nvmlReturn_t ret)
{
	switch (ret) {
	case NVML_SUCCESS:
		return "Success";
	case NVML_ERROR_UNINITIALIZED:
		return "Uninitialized";
	case NVML_ERROR_NO_PERMISSION:
		return "Insufficient Permissions";
	case NVML_ERROR_GPU_IS_LOST:
		return "GPU is lost";
	case NVML_ERROR_DRIVER_NOT_LOADED:
		return "Driver Not Loaded";
	default:
		return "Other Error";
	}
}

nvmlReturn_t nvmlSystemGetDriverVersion(char *to, unsigned length) { return words(&driver, "version", to, length); }

nvmlReturn_t nvmlDeviceGetCount_v2(unsigned *n)
{
	pthread_mutex_lock(&lock);
	refresh();
	nvmlReturn_t ret = state(NULL);
	*n = 0;
	for (int i = 0; ret == NVML_SUCCESS && i < count; i++)
		*n += devices[i].instance < 0;
	LEAVE
}

nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned index, nvmlDevice_t *d)
{
	ENTER(NULL)
	if (ret == NVML_SUCCESS) {
		ret = NVML_ERROR_INVALID_ARGUMENT;
		for (int i = 0; i < count; i++)
			if (devices[i].instance < 0 && devices[i].gpu == (int)index) {
				d->handle = &devices[i];
				ret = state(d->handle);
				const char *t;
				if (ret == NVML_SUCCESS && find(d->handle, "handle"))
					ret = text_of(d->handle, "handle", &t);
			}
	}
	LEAVE
}

nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t d, char *to, unsigned length) { return words(d.handle, "uuid", to, length); }
nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t d, char *to, unsigned length) { return words(d.handle, "name", to, length); }

nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t d, nvmlPciInfo_t *pci)
{
	memset(pci, 0, sizeof(*pci));
	return words(d.handle, "pci", pci->busId, sizeof(pci->busId));
}

nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t d, nvmlUtilization_t *u)
{
	unsigned long long n[2];
	nvmlReturn_t ret = list(d.handle, "utilization", n, 2);
	if (ret == NVML_SUCCESS)
		u->gpu = n[0], u->memory = n[1];
	return ret;
}

nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t d, nvmlMemory_t *m)
{
	unsigned long long n[3];
	nvmlReturn_t ret = list(d.handle, "memory", n, 3);
	if (ret == NVML_SUCCESS)
		m->total = n[0], m->used = n[1] + n[2], m->free = n[0] - n[1] - n[2];
	return ret;
}

nvmlReturn_t nvmlDeviceGetBAR1MemoryInfo(nvmlDevice_t d, nvmlBAR1Memory_t *m)
{
	unsigned long long n[2];
	nvmlReturn_t ret = list(d.handle, "bar1", n, 2);
	if (ret == NVML_SUCCESS)
		m->bar1Total = n[0], m->bar1Used = n[1], m->bar1Free = n[0] - n[1];
	return ret;
}

#define UNSIGNED(function, type, key)                                                                                                               \
	nvmlReturn_t function(nvmlDevice_t d, type *v)                                                                                               \
	{                                                                                                                                            \
		double n;                                                                                                                            \
		nvmlReturn_t ret = number(d.handle, key, &n);                                                                                        \
		if (ret == NVML_SUCCESS)                                                                                                             \
			*v = (type)n;                                                                                                                \
		return ret;                                                                                                                          \
	}

UNSIGNED(nvmlDeviceGetPowerUsage, unsigned, "power")
UNSIGNED(nvmlDeviceGetEnforcedPowerLimit, unsigned, "power_limit")
UNSIGNED(nvmlDeviceGetTotalEnergyConsumption, unsigned long long, "energy")
UNSIGNED(nvmlDeviceGetNumFans, unsigned, "fans")
UNSIGNED(nvmlDeviceGetMaxMigDeviceCount, unsigned, "mig_count")
UNSIGNED(nvmlDeviceGetGpuInstanceId, unsigned, "gi")
UNSIGNED(nvmlDeviceGetComputeInstanceId, unsigned, "ci")
UNSIGNED(nvmlDeviceGetCurrentClocksThrottleReasons, unsigned long long, "clocks_reasons")
UNSIGNED(nvmlDeviceGetSupportedEventTypes, unsigned long long, "event_types")

static nvmlReturn_t indexed(struct nvmlDevice_st *d, const char *prefix, unsigned i, unsigned *v)
{
	char key[40];
	double n;
	snprintf(key, sizeof(key), "%s.%u", prefix, i);
	nvmlReturn_t ret = number(d, key, &n);
	if (ret == NVML_SUCCESS)
		*v = (unsigned)n;
	return ret;
}

nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t d, nvmlTemperatureSensors_t s, unsigned *v) { return indexed(d.handle, "temperature", s, v); }
nvmlReturn_t nvmlDeviceGetClockInfo(nvmlDevice_t d, nvmlClockType_t c, unsigned *v) { return indexed(d.handle, "clock", c, v); }
nvmlReturn_t nvmlDeviceGetFanSpeed_v2(nvmlDevice_t d, unsigned fan, unsigned *v) { return indexed(d.handle, "fan", fan, v); }

nvmlReturn_t nvmlDeviceGetEncoderUtilization(nvmlDevice_t d, unsigned *v, unsigned *period)
{
	*period = 100000;
	return indexed(d.handle, "coder", 0, v);
}

nvmlReturn_t nvmlDeviceGetDecoderUtilization(nvmlDevice_t d, unsigned *v, unsigned *period)
{
	*period = 100000;
	return indexed(d.handle, "coder", 1, v);
}

nvmlReturn_t nvmlDeviceGetTotalEccErrors(nvmlDevice_t d, nvmlMemoryErrorType_t type, nvmlEccCounterType_t counter, unsigned long long *v)
{
	unsigned n = 0;
	nvmlReturn_t ret = indexed(d.handle, counter == NVML_VOLATILE_ECC ? "ecc" : "ecc_aggregate", type, &n);
	*v = n;
	return ret;
}

nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t d, unsigned *current, unsigned *pending)
{
	nvmlReturn_t ret = indexed(d.handle, "mig", 0, current);
	*pending = *current;
	return ret;
}

nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t d, unsigned index, nvmlDevice_t *instance)
{
	ENTER(d.handle)
	if (ret == NVML_SUCCESS) {
		ret = NVML_ERROR_NOT_FOUND;
		for (int i = 0; i < count; i++)
			if (devices[i].gpu == d.handle->gpu && devices[i].instance == (int)index && !find(&devices[i], "gap")) {
				instance->handle = &devices[i];
				ret = NVML_SUCCESS;
			}
	}
	LEAVE
}

nvmlReturn_t nvmlDeviceGetAttributes_v2(nvmlDevice_t d, nvmlDeviceAttributes_t *a)
{
	unsigned long long n[3];
	memset(a, 0, sizeof(*a));
	nvmlReturn_t ret = list(d.handle, "slices", n, 3);
	if (ret == NVML_SUCCESS)
		a->gpuInstanceSliceCount = n[0], a->computeInstanceSliceCount = n[1], a->memorySizeMB = n[2];
	return ret;
}

// process lines: "process KIND PID BYTES GI CI"; KIND is c(ompute), g(raphics) or m(ps).
static nvmlReturn_t processes(struct nvmlDevice_st *d, char kind, unsigned *n, nvmlProcessInfo_t *infos)
{
	ENTER(d)
	unsigned found = 0, room = *n;
	for (int i = 0; ret == NVML_SUCCESS && i < d->count; i++) {
		char k;
		unsigned pid, gi, ci;
		unsigned long long bytes;
		if (strcmp(d->values[i].key, "process") || sscanf(d->values[i].text, "%c %u %llu %u %u", &k, &pid, &bytes, &gi, &ci) != 5 || k != kind)
			continue;
		if (found < room) {
			infos[found].pid = pid;
			infos[found].usedGpuMemory = bytes;
			infos[found].gpuInstanceId = gi;
			infos[found].computeInstanceId = ci;
		}
		found++;
	}
	if (ret == NVML_SUCCESS) {
		*n = found;
		if (found > room)
			ret = NVML_ERROR_INSUFFICIENT_SIZE;
	}
	LEAVE
}

nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t d, unsigned *n, nvmlProcessInfo_t *p) { return processes(d.handle, 'c', n, p); }

// sample lines: "sample PID MICROSECONDS SM MEM ENC DEC".
nvmlReturn_t nvmlDeviceGetProcessUtilization(nvmlDevice_t d, nvmlProcessUtilizationSample_t *to, unsigned *n, unsigned long long since)
{
	ENTER(d.handle)
	unsigned found = 0;
	int there = 0;
	for (int i = 0; ret == NVML_SUCCESS && i < d.handle->count; i++) {
		nvmlProcessUtilizationSample_t s;
		if (strcmp(d.handle->values[i].key, "sample"))
			continue;
		there = 1;
		if (sscanf(d.handle->values[i].text, "%u %llu %u %u %u %u", &s.pid, &s.timeStamp, &s.smUtil, &s.memUtil, &s.encUtil, &s.decUtil) != 6 || s.timeStamp <= since)
			continue;
		if (to && found < *n)
			to[found] = s;
		found++;
	}
	if (ret == NVML_SUCCESS) {
		if (!there && !find(d.handle, "samples"))
			ret = NVML_ERROR_NOT_SUPPORTED;
		else if (!found)
			ret = NVML_ERROR_NOT_FOUND;
		else if (!to || found > *n)
			ret = NVML_ERROR_INSUFFICIENT_SIZE;
		*n = found;
	}
	LEAVE
}

// field lines: "field.ID TYPE NUMBER"; TYPE is one of NVML's.
nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t d, int n, nvmlFieldValue_t *fields)
{
	ENTER(d.handle)
	for (int i = 0; ret == NVML_SUCCESS && i < n; i++) {
		char key[40];
		const char *t;
		snprintf(key, sizeof(key), "field.%u", fields[i].fieldId);
		fields[i].nvmlReturn = text_of(d.handle, key, &t);
		if (fields[i].nvmlReturn != NVML_SUCCESS)
			continue;
		fields[i].valueType = strtoul(t, (char **)&t, 10);
		switch (fields[i].valueType) {
		case NVML_VALUE_TYPE_DOUBLE:
			fields[i].value.dVal = strtod(t, NULL);
			break;
		case NVML_VALUE_TYPE_UNSIGNED_INT:
			fields[i].value.uiVal = strtoul(t, NULL, 10);
			break;
		default:
			fields[i].value.ullVal = strtoull(t, NULL, 10);
		}
	}
	LEAVE
}

nvmlReturn_t nvmlEventSetCreate(nvmlEventSet_t *set)
{
	ENTER(NULL)
	if (ret == NVML_SUCCESS)
		set->handle = calloc(1, sizeof(*set->handle));
	LEAVE
}

nvmlReturn_t nvmlEventSetFree(nvmlEventSet_t set)
{
	free(set.handle);
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t d, unsigned long long types, nvmlEventSet_t set)
{
	ENTER(d.handle)
	(void)types, (void)set;
	LEAVE
}

nvmlReturn_t nvmlEventSetWait_v2(nvmlEventSet_t set, nvmlEventData_t *data, unsigned timeout)
{
	(void)set;
	for (unsigned waited = 0;; waited++) {
		pthread_mutex_lock(&lock);
		refresh();
		nvmlReturn_t ret = state(NULL);
		int found = ret == NVML_SUCCESS && told < event_count;
		if (found) {
			memset(data, 0, sizeof(*data));
			for (int i = 0; i < count; i++)
				if (devices[i].instance < 0 && devices[i].gpu == events[told].gpu)
					data->device.handle = &devices[i];
			data->eventType = events[told].type;
			data->eventData = events[told].data;
			data->gpuInstanceId = events[told].gi;
			data->computeInstanceId = events[told].ci;
			told++;
		}
		pthread_mutex_unlock(&lock);
		if (found || ret != NVML_SUCCESS)
			return ret;
		if (waited >= timeout)
			return NVML_ERROR_TIMEOUT;
		nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
	}
}

#ifndef OLD_DRIVER

nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t d, nvmlMemory_v2_t *m)
{
	unsigned long long n[3];
	if (m->version != nvmlMemory_v2)
		return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
	nvmlReturn_t ret = list(d.handle, "memory", n, 3);
	if (ret == NVML_SUCCESS)
		m->total = n[0], m->used = n[1], m->reserved = n[2], m->free = n[0] - n[1] - n[2];
	return ret;
}

UNSIGNED(nvmlDeviceGetCurrentClocksEventReasons, unsigned long long, "clocks_reasons")

nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses_v3(nvmlDevice_t d, unsigned *n, nvmlProcessInfo_t *p) { return processes(d.handle, 'g', n, p); }
nvmlReturn_t nvmlDeviceGetMPSComputeRunningProcesses_v3(nvmlDevice_t d, unsigned *n, nvmlProcessInfo_t *p) { return processes(d.handle, 'm', n, p); }

nvmlReturn_t nvmlDeviceGetRemappedRows(nvmlDevice_t d, unsigned *corrected, unsigned *uncorrected, unsigned *pending, unsigned *failed)
{
	unsigned long long n[4];
	nvmlReturn_t ret = list(d.handle, "rows", n, 4);
	if (ret == NVML_SUCCESS)
		*corrected = n[0], *uncorrected = n[1], *pending = n[2], *failed = n[3];
	return ret;
}

nvmlReturn_t nvmlGpmQueryDeviceSupport(nvmlDevice_t d, nvmlGpmSupport_t *support)
{
	ENTER(d.handle)
	support->isSupportedDevice = ret == NVML_SUCCESS && find(d.handle, "gpm") != NULL;
	LEAVE
}

nvmlReturn_t nvmlGpmSampleAlloc(nvmlGpmSample_t *sample)
{
	pthread_mutex_lock(&lock);
	samples++;
	account();
	pthread_mutex_unlock(&lock);
	sample->handle = calloc(1, sizeof(*sample->handle));
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlGpmSampleFree(nvmlGpmSample_t sample)
{
	pthread_mutex_lock(&lock);
	samples--;
	account();
	pthread_mutex_unlock(&lock);
	free(sample.handle);
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlGpmSampleGet(nvmlDevice_t d, nvmlGpmSample_t sample)
{
	sample.handle->device = d.handle;
	sample.handle->gi = -1;
	return NVML_SUCCESS;
}

nvmlReturn_t nvmlGpmMigSampleGet(nvmlDevice_t d, unsigned gi, nvmlGpmSample_t sample)
{
	sample.handle->device = d.handle;
	sample.handle->gi = gi;
	return NVML_SUCCESS;
}

// gpm lines: "gpm.ID NUMBER" of the GPU, "gpm.GI.ID NUMBER" of an instance of it.
nvmlReturn_t nvmlGpmMetricsGet(nvmlGpmMetricsGet_t *get)
{
	if (get->sample1.handle->device != get->sample2.handle->device || get->sample1.handle->gi != get->sample2.handle->gi)
		return NVML_ERROR_INVALID_ARGUMENT;
	for (unsigned i = 0; i < get->numMetrics; i++) {
		char key[40];
		if (get->sample1.handle->gi < 0)
			snprintf(key, sizeof(key), "gpm.%u", get->metrics[i].metricId);
		else
			snprintf(key, sizeof(key), "gpm.%d.%u", get->sample1.handle->gi, get->metrics[i].metricId);
		get->metrics[i].nvmlReturn = number(get->sample1.handle->device, key, &get->metrics[i].value);
	}
	return NVML_SUCCESS;
}

#endif
