/* A libnvidia-ml.so.1 for tests: three devices, of which one can be lost while it is read and one has few counters. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int Return;
enum { SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, GPU_IS_LOST = 15 };
typedef struct { const char *name, *uuid; int poor, reads; } Device;
typedef struct { unsigned long long total, free, used; } Memory;
typedef struct { unsigned int gpu, memory; } Utilization;

static Device devices[3] = {
    {"Test A100", "GPU-aaaaaaaa-0000-0000-0000-000000000000", 0, 0},
    {"Test T4", "GPU-bbbbbbbb-0000-0000-0000-000000000000", 1, 0},
    {"Test L4", "GPU-bbcccccc-0000-0000-0000-000000000000", 0, 0},
};
static int started = 0;

/* NVML_STUB_LOST=PLACE:READS: that device answers so many readings and is lost then. */
static int lost(Device *device) {
    const char *text = getenv("NVML_STUB_LOST");
    int place, reads;
    return text && sscanf(text, "%d:%d", &place, &reads) == 2 && device == devices + place && device->reads > reads;
}
#define CHECK(device) \
    if (!started) return UNINITIALIZED; \
    if (lost(device)) return GPU_IS_LOST

Return nvmlInit_v2(void) { started++; return SUCCESS; }
Return nvmlInitWithFlags(unsigned int flags) { (void)flags; started++; return SUCCESS; }
Return nvmlShutdown(void) { started--; return SUCCESS; }
const char *nvmlErrorString(Return code) { (void)code; return "an error of the stub"; }
Return nvmlDeviceGetCount_v2(unsigned int *count) { *count = 3; return started ? SUCCESS : UNINITIALIZED; }
Return nvmlDeviceGetHandleByIndex_v2(unsigned int index, Device **device) {
    if (index >= 3) return INVALID_ARGUMENT;
    *device = devices + index;
    return SUCCESS;
}
Return nvmlDeviceGetHandleByUUID(const char *uuid, Device **device) {
    for (int i = 0; i < 3; i++)
        if (!strcmp(devices[i].uuid, uuid)) { *device = devices + i; return SUCCESS; }
    return NOT_FOUND;
}
Return nvmlDeviceGetUUID(Device *device, char *text, unsigned int length) {
    CHECK(device);
    snprintf(text, length, "%s", device->uuid);
    return SUCCESS;
}
Return nvmlDeviceGetName(Device *device, char *text, unsigned int length) {
    CHECK(device);
    snprintf(text, length, "%s", device->name);
    return SUCCESS;
}
Return nvmlDeviceGetMemoryInfo(Device *device, Memory *memory) {
    device->reads++;
    CHECK(device);
    memory->total = 40000000000ULL;
    memory->used = 1000000000ULL * device->reads;
    memory->free = memory->total - memory->used;
    return SUCCESS;
}
Return nvmlDeviceGetUtilizationRates(Device *device, Utilization *rates) {
    CHECK(device);
    if (device->poor) return NOT_SUPPORTED;
    rates->gpu = 91;
    rates->memory = 0;
    return SUCCESS;
}
Return nvmlDeviceGetPowerUsage(Device *device, unsigned int *milliwatts) {
    CHECK(device);
    *milliwatts = 70500;
    return device->poor ? NOT_SUPPORTED : SUCCESS;
}
Return nvmlDeviceGetClockInfo(Device *device, int kind, unsigned int *mhz) {
    CHECK(device);
    *mhz = kind == 1 ? 1410 : kind == 2 ? 1215 : 0;
    return SUCCESS;
}
Return nvmlDeviceGetTemperature(Device *device, int sensor, unsigned int *celsius) {
    (void)sensor;
    CHECK(device);
    *celsius = 55;
    return SUCCESS;
}
Return nvmlDeviceGetCurrentClocksThrottleReasons(Device *device, unsigned long long *mask) {
    CHECK(device);
    *mask = 0x4 | 0x20;
    return device->poor ? NOT_SUPPORTED : SUCCESS;
}
