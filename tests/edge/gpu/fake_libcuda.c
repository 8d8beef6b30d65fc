/* Stands in for NVIDIA's driver library: compiled by test_driver.py, with what it shall say given by -D. */
#include <stddef.h>
#include <stdio.h>

#ifndef VERSION
#define VERSION 12060
#endif
#ifndef COUNT
#define COUNT 1
#endif
#ifndef INIT
#define INIT 0
#endif

enum { NOT_INITIALIZED = 3, INVALID_VALUE = 1, INVALID_DEVICE = 101, SYSTEM_NOT_READY = 802 };

static int started = 0;

int cuDriverGetVersion(int *version) {
  *version = VERSION;
  return 0;
}

int cuInit(unsigned int flags) {
  started = flags == 0 && INIT == 0;
  return INIT;
}

int cuDeviceGetCount(int *count) {
  *count = COUNT;
  return started ? 0 : NOT_INITIALIZED;
}

int cuDeviceGet(int *device, int ordinal) {
  *device = 40 + ordinal; /* a handle need not be the ordinal */
  return ordinal < COUNT ? 0 : INVALID_DEVICE;
}

int cuDeviceGetName(char *name, int length, int device) {
  snprintf(name, (size_t)length, "Orin %d", device - 40);
  return 0;
}

int cuDeviceGetAttribute(int *value, int attribute, int device) {
  *value = attribute == 75 ? 8 : 7 + device - 40;
  return attribute == 75 || attribute == 76 ? 0 : INVALID_VALUE;
}

#ifndef NO_MEMORY_CALL
int cuDeviceTotalMem_v2(size_t *bytes, int device) {
  *bytes = (size_t)device << 30; /* more than 32 bits hold */
  return 0;
}
#endif

#ifndef NO_EXPLANATION
int cuGetErrorString(int error, const char **text) {
  *text = error == SYSTEM_NOT_READY ? "system not yet initialized" : NULL;
  return *text ? 0 : INVALID_VALUE;
}
#endif
