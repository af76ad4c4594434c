// Purpose: one CUDA device as a process uses it to move state: its primary context (torch's, too),
// streams, events and buffers that release themselves.
// Threads: thread-safe; a stream's or event's calls are externally serialised. A thread has the
// context current only within CudaDevice::Scope, and gets back what it had before.
// Ownership: streams, events, buffers share the device, and are released in its context.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "driver/cuda_library.hpp"
#include "transport/regions.hpp"

namespace hpcore::transport {

class CudaDevice {
 public:
  // By uuid ("GPU-..." as nvidia-smi and torch print it) where one is given, else by ordinal among
  // those that this process may see. kNotFound, kUnsupported (no driver).
  static Result<std::shared_ptr<CudaDevice>> open(const std::string& library, int ordinal,
                                                  const std::string& uuid);
  ~CudaDevice();
  CudaDevice(const CudaDevice&) = delete;
  CudaDevice& operator=(const CudaDevice&) = delete;

  class Scope {
   public:
    explicit Scope(const CudaDevice& device) : device_(device) {
      pushed_ = device_.library().context_push(device_.context_) == driver::cuda::kSuccess;
    }
    ~Scope() {
      driver::cuda::Context* before = nullptr;
      if (pushed_) (void)device_.library().context_pop(&before);
    }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    const CudaDevice& device_;
    bool pushed_ = false;
  };

  [[nodiscard]] const driver::CudaLibrary& library() const { return library_; }
  [[nodiscard]] const std::string& uuid() const { return uuid_; }
  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] int ordinal() const { return ordinal_; }
  [[nodiscard]] bool holds(const Region& region) const;  // memory of a device, not of the host
  [[nodiscard]] Status status(int result, const std::string& what) const;

 private:
  CudaDevice(const driver::CudaLibrary& library, int ordinal)
      : library_(library), ordinal_(ordinal) {}
  Status identify();

  driver::CudaLibrary library_;
  int ordinal_;
  driver::cuda::Device device_ = 0;
  driver::cuda::Context* context_ = nullptr;
  std::string uuid_;
  std::string name_;
};

// A stream that does not wait for the legacy default stream, nor it for this one.
class CudaStream {
 public:
  static Result<CudaStream> create(std::shared_ptr<CudaDevice> device);
  CudaStream() = default;
  CudaStream(CudaStream&& other) noexcept
      : device_(std::move(other.device_)), stream_(std::exchange(other.stream_, nullptr)) {}
  CudaStream& operator=(CudaStream&& other) noexcept;
  ~CudaStream();
  [[nodiscard]] driver::cuda::Stream* get() const { return stream_; }
  [[nodiscard]] Result<bool> idle() const;
  // Waits at most so long; kTimeout.
  [[nodiscard]] Status drain(double limit_s) const;
  // The stream and what it may still touch are given up, not waited for.
  void abandon() { stream_ = nullptr; }

 private:
  std::shared_ptr<CudaDevice> device_;
  driver::cuda::Stream* stream_ = nullptr;
};

class CudaEvent {
 public:
  static Result<CudaEvent> create(std::shared_ptr<CudaDevice> device, bool shared = false);
  // Another process's.
  static Result<CudaEvent> open(std::shared_ptr<CudaDevice> device,
                                const driver::cuda::IpcHandle& handle);
  CudaEvent() = default;
  CudaEvent(CudaEvent&& other) noexcept
      : device_(std::move(other.device_)), event_(std::exchange(other.event_, nullptr)) {}
  CudaEvent& operator=(CudaEvent&& other) noexcept;
  ~CudaEvent();
  [[nodiscard]] Status record(driver::cuda::Stream* stream) const;
  [[nodiscard]] Result<bool> done() const;
  [[nodiscard]] Result<driver::cuda::IpcHandle> handle() const;
  [[nodiscard]] bool valid() const { return event_ != nullptr; }

 private:
  std::shared_ptr<CudaDevice> device_;
  driver::cuda::Event* event_ = nullptr;
};

// Memory of the device, or of the host, pinned, where the device reaches it at full rate.
class CudaBuffer {
 public:
  enum class Kind { kDevice, kPinned };
  static Result<CudaBuffer> create(std::shared_ptr<CudaDevice> device, Kind kind, uint64_t bytes);
  CudaBuffer() = default;
  CudaBuffer(CudaBuffer&& other) noexcept { *this = std::move(other); }
  CudaBuffer& operator=(CudaBuffer&& other) noexcept;
  ~CudaBuffer();
  [[nodiscard]] uint64_t address() const { return address_; }
  [[nodiscard]] uint64_t bytes() const { return bytes_; }
  void abandon() { address_ = 0; }  // as CudaStream::abandon

 private:
  std::shared_ptr<CudaDevice> device_;
  Kind kind_ = Kind::kDevice;
  uint64_t address_ = 0;
  uint64_t bytes_ = 0;
};

// Enqueues copies between ranges that are cut differently; neighbours in both are one copy.
[[nodiscard]] Status copy_ranges(const CudaDevice& device, const std::vector<iovec>& to,
                                 const std::vector<iovec>& from, driver::cuda::Stream* stream);

// The device of that uuid, among those that this process may see; kNotFound.
Result<int> cuda_ordinal_of(const driver::CudaLibrary& library, const std::string& uuid);

}  // namespace hpcore::transport
