// Purpose: what this code uses of the CUDA driver's binary interface, declared here so that it
// builds where no CUDA is installed. Names are CUDA's without the prefix, in a namespace of their
// own. cuda_abi_check.cpp compares every value with <cuda.h> where the build found one.
// Source: cuda.h of 11.4 to 13.0. Threads, ownership: plain data.
#pragma once

#include <cstddef>
#include <cstdint>

namespace hpcore::driver::cuda {

constexpr int kSuccess = 0;
constexpr int kInvalidValue = 1;
constexpr int kOutOfMemory = 2;
constexpr int kNoDevice = 100;
constexpr int kNotReady = 600;
constexpr int kNotSupported = 801;

using Device = int;
using Pointer = uint64_t;  // CUdeviceptr
struct Context;            // opaque, as are the next two
struct Stream;
struct Event;

constexpr size_t kIpcHandleBytes = 64;
struct IpcHandle {  // of memory or of an event
  unsigned char data[kIpcHandleBytes];
};
struct Uuid {
  unsigned char bytes[16];
};

constexpr unsigned kStreamNonBlocking = 1;
constexpr unsigned kEventDisableTiming = 2;
constexpr unsigned kEventInterprocess = 4;
constexpr unsigned kHostAllocPortable = 1;
constexpr unsigned kIpcLazyPeerAccess = 1;
constexpr int kAttributeMemoryType = 2;
constexpr int kAttributeDeviceOrdinal = 9;
constexpr unsigned kMemoryTypeDevice = 2;

}  // namespace hpcore::driver::cuda
