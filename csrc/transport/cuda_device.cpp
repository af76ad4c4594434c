#include "transport/cuda_device.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <thread>

#include "base/futex.hpp"

namespace hpcore::transport {
namespace {

namespace cuda = driver::cuda;

constexpr auto kLook = std::chrono::microseconds(20);

std::string uuid_text(const cuda::Uuid& uuid) {
  std::string text = "GPU";
  for (size_t i = 0; i < sizeof uuid.bytes; ++i) {
    if (i == 0 || i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    char digits[3];
    std::snprintf(digits, sizeof digits, "%02x", uuid.bytes[i]);
    text += digits;
  }
  return text;
}

Result<std::string> uuid_of(const driver::CudaLibrary& library, int ordinal) {
  cuda::Device device = 0;
  cuda::Uuid uuid{};
  const std::string what = "asking for CUDA device " + std::to_string(ordinal);
  HPCORE_RETURN_IF_ERROR(library.status(library.device_get(&device, ordinal), what));
  HPCORE_RETURN_IF_ERROR(library.status(library.device_uuid(&uuid, device), what));
  return uuid_text(uuid);
}

// torch prints a uuid without the "GPU-".
std::string bare(const std::string& uuid) {
  return uuid.rfind("GPU-", 0) == 0 ? uuid.substr(4) : uuid;
}

}  // namespace

Result<int> cuda_ordinal_of(const driver::CudaLibrary& library, const std::string& uuid) {
  int count = 0;
  HPCORE_RETURN_IF_ERROR(library.status(library.device_count(&count), "counting CUDA devices"));
  for (int ordinal = 0; ordinal < count; ++ordinal) {
    const Result<std::string> found = uuid_of(library, ordinal);
    if (found.ok() && bare(found.value()) == bare(uuid)) return ordinal;
  }
  return Status(Code::kNotFound, "none of the " + std::to_string(count) +
                                     " CUDA devices that this process sees is " + uuid +
                                     " (CUDA_VISIBLE_DEVICES?)");
}

Result<std::shared_ptr<CudaDevice>> CudaDevice::open(const std::string& library, int ordinal,
                                                     const std::string& uuid) {
  Result<driver::CudaLibrary> loaded = driver::load_cuda_library(library);
  if (!loaded.ok()) return loaded.status();
  if (!uuid.empty()) {
    const Result<int> found = cuda_ordinal_of(loaded.value(), uuid);
    if (!found.ok()) return found.status();
    ordinal = found.value();
  }
  std::shared_ptr<CudaDevice> device(new CudaDevice(loaded.value(), ordinal));
  if (Status status = device->identify(); !status.ok()) return status;
  return device;
}

Status CudaDevice::identify() {
  int count = 0;
  HPCORE_RETURN_IF_ERROR(status(library_.device_count(&count), "counting CUDA devices"));
  if (ordinal_ < 0 || ordinal_ >= count) {
    return {Code::kNotFound, "there is no CUDA device " + std::to_string(ordinal_) + ": " +
                                 std::to_string(count) + " are visible"};
  }
  HPCORE_RETURN_IF_ERROR(status(library_.device_get(&device_, ordinal_), "opening the device"));
  char text[128] = {};
  HPCORE_RETURN_IF_ERROR(status(library_.device_name(text, sizeof text - 1, device_), "its name"));
  name_ = text;
  Result<std::string> uuid = uuid_of(library_, ordinal_);
  if (!uuid.ok()) return uuid.status();
  uuid_ = uuid.value();
  return status(library_.primary_context_retain(&context_, device_), "taking its context");
}

CudaDevice::~CudaDevice() {
  if (context_ != nullptr) (void)library_.primary_context_release(device_);
}

Status CudaDevice::status(int result, const std::string& what) const {
  return library_.status(result, what + " (CUDA device " + std::to_string(ordinal_) + ")");
}

bool CudaDevice::holds(const Region& region) const {
  const Scope scope(*this);
  unsigned type = 0;
  const int asked = library_.pointer_attribute(&type, cuda::kAttributeMemoryType, region.address);
  return asked == cuda::kSuccess && type == cuda::kMemoryTypeDevice;
}

Result<CudaStream> CudaStream::create(std::shared_ptr<CudaDevice> device) {
  const CudaDevice::Scope scope(*device);
  CudaStream made;
  HPCORE_RETURN_IF_ERROR(
      device->status(device->library().stream_create(&made.stream_, cuda::kStreamNonBlocking),
                     "creating a stream"));
  made.device_ = std::move(device);
  return made;
}

CudaStream& CudaStream::operator=(CudaStream&& other) noexcept {
  std::swap(device_, other.device_);
  std::swap(stream_, other.stream_);
  return *this;
}

CudaStream::~CudaStream() {
  if (stream_ == nullptr) return;
  const CudaDevice::Scope scope(*device_);
  (void)device_->library().stream_destroy(stream_);
}

Result<bool> CudaStream::idle() const {
  const CudaDevice::Scope scope(*device_);
  const int result = device_->library().stream_query(stream_);
  if (result == cuda::kNotReady) return false;
  HPCORE_RETURN_IF_ERROR(device_->status(result, "work of the state's stream"));
  return true;
}

Status CudaStream::drain(double limit_s) const {
  const TimePoint deadline = Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                                std::chrono::duration<double>(limit_s));
  for (;;) {
    const Result<bool> done = idle();
    if (!done.ok()) return done.status();
    if (done.value()) return {};
    if (Clock::now() >= deadline) {
      return {Code::kTimeout,
              "the state's stream still has work after " + std::to_string(limit_s) + " s"};
    }
    std::this_thread::sleep_for(kLook);
  }
}

Result<CudaEvent> CudaEvent::create(std::shared_ptr<CudaDevice> device, bool shared) {
  const CudaDevice::Scope scope(*device);
  CudaEvent made;
  const unsigned flags = cuda::kEventDisableTiming | (shared ? cuda::kEventInterprocess : 0);
  HPCORE_RETURN_IF_ERROR(
      device->status(device->library().event_create(&made.event_, flags), "creating an event"));
  made.device_ = std::move(device);
  return made;
}

Result<CudaEvent> CudaEvent::open(std::shared_ptr<CudaDevice> device,
                                  const cuda::IpcHandle& handle) {
  const CudaDevice::Scope scope(*device);
  CudaEvent made;
  HPCORE_RETURN_IF_ERROR(device->status(device->library().ipc_open_event(&made.event_, handle),
                                        "opening another process's event"));
  made.device_ = std::move(device);
  return made;
}

CudaEvent& CudaEvent::operator=(CudaEvent&& other) noexcept {
  std::swap(device_, other.device_);
  std::swap(event_, other.event_);
  return *this;
}

CudaEvent::~CudaEvent() {
  if (event_ == nullptr) return;
  const CudaDevice::Scope scope(*device_);
  (void)device_->library().event_destroy(event_);
}

Status CudaEvent::record(cuda::Stream* stream) const {
  const CudaDevice::Scope scope(*device_);
  return device_->status(device_->library().event_record(event_, stream), "recording an event");
}

Result<bool> CudaEvent::done() const {
  const CudaDevice::Scope scope(*device_);
  const int result = device_->library().event_query(event_);
  if (result == cuda::kNotReady) return false;
  HPCORE_RETURN_IF_ERROR(device_->status(result, "work before an event"));
  return true;
}

Result<cuda::IpcHandle> CudaEvent::handle() const {
  const CudaDevice::Scope scope(*device_);
  cuda::IpcHandle handle{};
  HPCORE_RETURN_IF_ERROR(
      device_->status(device_->library().ipc_get_event(&handle, event_), "sharing an event"));
  return handle;
}

Result<CudaBuffer> CudaBuffer::create(std::shared_ptr<CudaDevice> device, Kind kind,
                                      uint64_t bytes) {
  const CudaDevice::Scope scope(*device);
  CudaBuffer made;
  void* pinned = nullptr;
  const driver::CudaLibrary& library = device->library();
  const int result = kind == Kind::kDevice
                         ? library.mem_alloc(&made.address_, bytes)
                         : library.host_alloc(&pinned, bytes, cuda::kHostAllocPortable);
  HPCORE_RETURN_IF_ERROR(
      device->status(result, "allocating " + std::to_string(bytes) + " bytes of staging"));
  if (kind == Kind::kPinned) made.address_ = reinterpret_cast<uint64_t>(pinned);
  made.kind_ = kind;
  made.bytes_ = bytes;
  made.device_ = std::move(device);
  return made;
}

CudaBuffer& CudaBuffer::operator=(CudaBuffer&& other) noexcept {
  std::swap(device_, other.device_);
  std::swap(kind_, other.kind_);
  std::swap(address_, other.address_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

CudaBuffer::~CudaBuffer() {
  if (address_ == 0) return;
  const CudaDevice::Scope scope(*device_);
  if (kind_ == Kind::kDevice) {
    (void)device_->library().mem_free(address_);
  } else {
    (void)device_->library().host_free(reinterpret_cast<void*>(address_));
  }
}

Status copy_ranges(const CudaDevice& device, const std::vector<iovec>& to,
                   const std::vector<iovec>& from, driver::cuda::Stream* stream) {
  const CudaDevice::Scope scope(device);
  size_t t = 0, f = 0;
  uint64_t t_done = 0, f_done = 0;
  uint64_t target = 0, source = 0, length = 0;  // what is to be copied next
  auto flush = [&]() -> Status {
    if (length == 0) return {};
    return device.status(device.library().memcpy_async(target, source, length, stream),
                         "copying state");
  };
  while (t < to.size() && f < from.size()) {
    const uint64_t bytes = std::min(to[t].iov_len - t_done, from[f].iov_len - f_done);
    const uint64_t next_target = reinterpret_cast<uint64_t>(to[t].iov_base) + t_done;
    const uint64_t next_source = reinterpret_cast<uint64_t>(from[f].iov_base) + f_done;
    if (length > 0 && target + length == next_target && source + length == next_source) {
      length += bytes;
    } else {
      HPCORE_RETURN_IF_ERROR(flush());
      target = next_target, source = next_source, length = bytes;
    }
    t_done += bytes, f_done += bytes;
    if (t_done == to[t].iov_len) ++t, t_done = 0;
    if (f_done == from[f].iov_len) ++f, f_done = 0;
  }
  return flush();
}

}  // namespace hpcore::transport
