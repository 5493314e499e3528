/* See device.h. */
#include "base/error.h"
#include "cuda_common.h"
#include "device.h"

// The runtime loads the driver at its first call, which fails where there is none; a program without device code fails
// in the same way.
static cudaError_t current(int* device) {
    int devices = 0;
    cudaError_t error = cudaGetDeviceCount(&devices);
    if (error == cudaSuccess && !devices) error = cudaErrorNoDevice;
    if (error == cudaSuccess) error = cudaGetDevice(device);
    if (error != cudaSuccess) cudaGetLastError();  // planning continues
    return error;
}

const char* device_name(void) {
    static cudaDeviceProp properties;
    int device;
    if (current(&device) != cudaSuccess) return "a GPU that is not here";
    cudaCheck(cudaGetDeviceProperties(&properties, device));
    return properties.name;
}

bool device_is_emulated(void) {
#ifdef __CUDACC__
    return false;
#else
    return true;
#endif
}

bool device_free_bytes(size_t* bytes) {
    size_t total;
    int device;
    if (current(&device) != cudaSuccess) return false;
    cudaCheck(cudaMemGetInfo(bytes, &total));
    return true;
}

static void capability(int device, int* major, int* minor) {
    cudaCheck(cudaDeviceGetAttribute(major, cudaDevAttrComputeCapabilityMajor, device));
    cudaCheck(cudaDeviceGetAttribute(minor, cudaDevAttrComputeCapabilityMinor, device));
}

void device_refuse_old(void) {
    int device, major, minor;
    if (current(&device) != cudaSuccess) return;
    capability(device, &major, &minor);
    if (major < 8)
        fatal("%s has compute capability %d.%d; 8.0 or newer is needed (choose a GPU with CUDA_VISIBLE_DEVICES)",
              device_name(), major, minor);
}

void device_require(void) {
    int device;
    cudaError_t error = current(&device);
    if (error != cudaSuccess)
        fatal("no GPU can be used (%s); `make CPU=1` builds for the CPU", cudaGetErrorString(error));
}

void device_require_fp8(void) {
    int device, major, minor;
    device_require();
    cudaCheck(cudaGetDevice(&device));
    capability(device, &major, &minor);
    if (10 * major + minor < 89)
        fatal("%s has compute capability %d.%d; --base fp8 needs 8.9 or newer: leave it out, or use --base nf4",
              device_name(), major, minor);
}
