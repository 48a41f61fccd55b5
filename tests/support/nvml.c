/* A Management Library with one GPU that tells its name, its load and why it is slowed down, and nothing else: as much
   as on a Jetson Thor. What is not defined here is not supported. -DGPUS=0 has none. */
#include <string.h>
#ifndef GPUS
#define GPUS 1
#endif
typedef struct { unsigned gpu, memory; } utilization;
int nvmlInit_v2(void) { return 0; }
int nvmlInitWithFlags(unsigned flags) { (void)flags; return 0; }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int code) { (void)code; return "stub"; }
int nvmlSystemGetDriverVersion(char *text, unsigned size) { strncpy(text, "580.65", size); return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = GPUS; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) { (void)index; *device = (void *)1; return 0; }
int nvmlDeviceGetName(void *device, char *text, unsigned size) { (void)device; strncpy(text, "NVIDIA Thor", size); return 0; }
int nvmlDeviceGetUtilizationRates(void *device, utilization *rates) { (void)device; rates->gpu = 37; rates->memory = 0; return 0; }
int nvmlDeviceGetCurrentClocksThrottleReasons(void *device, unsigned long long *reasons) {
  (void)device;
  *reasons = 0x20; /* nvmlClocksThrottleReasonSwThermalSlowdown */
  return 0;
}
