// Purpose: the CUDA driver (libcuda), loaded at run time: what moving state needs of it. The
// runtime (libcudart) is not used: it is a layer over the same contexts, and memory of torch's is
// known to the driver. Looked for: the path asked for (at the edge: $HPCORE_CUDA), else the one
// that this process has loaded, else the system's. 11.4 or later. Threads: thread-safe once loaded.
// Ownership: never unloaded, so that a table may be kept by value.
#pragma once

#include <string>
#include <vector>

#include "base/status.hpp"
#include "driver/cuda_abi.hpp"

namespace hpcore::driver {

struct CudaLibrary {
  std::string path;
  int version = 0;  // of the driver's interface: major * 1000 + minor * 10

  int (*init)(unsigned flags) = nullptr;
  int (*get_error_string)(int result, const char**) = nullptr;
  int (*device_count)(int*) = nullptr;
  int (*device_get)(cuda::Device*, int ordinal) = nullptr;
  int (*device_name)(char*, int bytes, cuda::Device) = nullptr;
  int (*device_uuid)(cuda::Uuid*, cuda::Device) = nullptr;
  int (*primary_context_retain)(cuda::Context**, cuda::Device) = nullptr;
  int (*primary_context_release)(cuda::Device) = nullptr;
  int (*context_push)(cuda::Context*) = nullptr;
  int (*context_pop)(cuda::Context**) = nullptr;
  int (*mem_alloc)(cuda::Pointer*, size_t) = nullptr;
  int (*mem_free)(cuda::Pointer) = nullptr;
  int (*host_alloc)(void**, size_t, unsigned flags) = nullptr;
  int (*host_free)(void*) = nullptr;
  int (*memcpy_async)(cuda::Pointer to, cuda::Pointer from, size_t, cuda::Stream*) = nullptr;
  int (*address_range)(cuda::Pointer* base, size_t* bytes, cuda::Pointer) = nullptr;
  int (*pointer_attribute)(void* out, int attribute, cuda::Pointer) = nullptr;
  int (*stream_create)(cuda::Stream**, unsigned flags) = nullptr;
  int (*stream_destroy)(cuda::Stream*) = nullptr;
  int (*stream_query)(cuda::Stream*) = nullptr;
  int (*event_create)(cuda::Event**, unsigned flags) = nullptr;
  int (*event_record)(cuda::Event*, cuda::Stream*) = nullptr;
  int (*event_query)(cuda::Event*) = nullptr;
  int (*event_destroy)(cuda::Event*) = nullptr;
  int (*ipc_get_mem)(cuda::IpcHandle*, cuda::Pointer) = nullptr;
  int (*ipc_open_mem)(cuda::Pointer*, cuda::IpcHandle, unsigned flags) = nullptr;
  int (*ipc_close_mem)(cuda::Pointer) = nullptr;
  int (*ipc_get_event)(cuda::IpcHandle*, cuda::Event*) = nullptr;
  int (*ipc_open_event)(cuda::Event**, cuda::IpcHandle) = nullptr;

  [[nodiscard]] std::string version_text() const;
  // Ok for kSuccess; kNoSpace for memory that is not there; else kSystem: "WHAT: CUDA's words".
  [[nodiscard]] Status status(int result, const std::string& what) const;
};

constexpr int kOldestCudaVersion = 11040;

std::vector<std::string> cuda_library_places(const std::string& asked_path);

// Loads and initialises. kNotFound: no library. kUnsupported: too old, lacks a function, or finds
// no usable driver.
Result<CudaLibrary> load_cuda_library(const std::string& asked_path);

}  // namespace hpcore::driver
