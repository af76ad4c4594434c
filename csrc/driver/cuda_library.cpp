#include "driver/cuda_library.hpp"

#include "driver/shared_library.hpp"

namespace hpcore::driver {
namespace {

std::string text_of(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

// With the suffix of the version whose parameters are 64 bits wide; what <cuda.h> renames to.
void take_functions(SharedLibrary* from, CudaLibrary* to) {
  from->take("cuInit", &to->init);
  from->take("cuGetErrorString", &to->get_error_string);
  from->take("cuDeviceGetCount", &to->device_count);
  from->take("cuDeviceGet", &to->device_get);
  from->take("cuDeviceGetName", &to->device_name);
  from->take("cuDeviceGetUuid_v2", &to->device_uuid);
  from->take("cuDevicePrimaryCtxRetain", &to->primary_context_retain);
  from->take("cuDevicePrimaryCtxRelease_v2", &to->primary_context_release);
  from->take("cuCtxPushCurrent_v2", &to->context_push);
  from->take("cuCtxPopCurrent_v2", &to->context_pop);
  from->take("cuMemAlloc_v2", &to->mem_alloc);
  from->take("cuMemFree_v2", &to->mem_free);
  from->take("cuMemHostAlloc", &to->host_alloc);
  from->take("cuMemFreeHost", &to->host_free);
  from->take("cuMemcpyAsync", &to->memcpy_async);
  from->take("cuMemGetAddressRange_v2", &to->address_range);
  from->take("cuPointerGetAttribute", &to->pointer_attribute);
  from->take("cuStreamCreate", &to->stream_create);
  from->take("cuStreamDestroy_v2", &to->stream_destroy);
  from->take("cuStreamQuery", &to->stream_query);
  from->take("cuEventCreate", &to->event_create);
  from->take("cuEventRecord", &to->event_record);
  from->take("cuEventQuery", &to->event_query);
  from->take("cuEventDestroy_v2", &to->event_destroy);
  from->take("cuIpcGetMemHandle", &to->ipc_get_mem);
  from->take("cuIpcOpenMemHandle_v2", &to->ipc_open_mem);
  from->take("cuIpcCloseMemHandle", &to->ipc_close_mem);
  from->take("cuIpcGetEventHandle", &to->ipc_get_event);
  from->take("cuIpcOpenEventHandle", &to->ipc_open_event);
}

}  // namespace

std::string CudaLibrary::version_text() const { return text_of(version); }

Status CudaLibrary::status(int result, const std::string& what) const {
  if (result == cuda::kSuccess) return {};
  const char* words = nullptr;
  if (get_error_string(result, &words) != cuda::kSuccess || words == nullptr) words = "unknown";
  const Code code = result == cuda::kOutOfMemory ? Code::kNoSpace : Code::kSystem;
  return {code, what + ": " + words + " (CUDA error " + std::to_string(result) + ")"};
}

std::vector<std::string> cuda_library_places(const std::string& asked_path) {
  if (!asked_path.empty()) return {asked_path};
  return {"loaded:libcuda.so.1", "libcuda.so.1"};
}

Result<CudaLibrary> load_cuda_library(const std::string& asked_path) {
  Result<SharedLibrary> opened = SharedLibrary::open(
      "libcuda", cuda_library_places(asked_path),
      "It comes with NVIDIA's driver; name the file with HPCORE_CUDA if it lies elsewhere");
  if (!opened.ok()) return opened.status();
  SharedLibrary& from = opened.value();
  CudaLibrary library;
  library.path = from.path();
  int (*get_version)(int*) = nullptr;
  if (!from.take("cuDriverGetVersion", &get_version) ||
      get_version(&library.version) != cuda::kSuccess) {
    return Status(Code::kUnsupported,
                  from.path() + " is no CUDA driver: it has no cuDriverGetVersion");
  }
  if (library.version < kOldestCudaVersion) {
    return Status(Code::kUnsupported, "the CUDA driver in " + from.path() + " offers version " +
                                          text_of(library.version) + "; needed is " +
                                          text_of(kOldestCudaVersion) + " or later");
  }
  take_functions(&from, &library);
  if (!from.missing().empty()) {
    return Status(Code::kUnsupported, "the CUDA driver " + text_of(library.version) + " in " +
                                          from.path() + " lacks " + from.missing());
  }
  const Status started = library.status(library.init(0), "starting CUDA");
  if (!started.ok()) return Status(Code::kUnsupported, started.message() + ", " + from.path());
  return library;
}

}  // namespace hpcore::driver
