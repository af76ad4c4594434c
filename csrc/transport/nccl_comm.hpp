// Purpose: an NCCL communicator of few ranks for moving state: brought up without blocking and
// within a deadline, and always ended by abort: destroying one with work in flight waits for a peer
// that may be gone.
// Threads: thread-safe. Ownership: shares the device; the library is never unloaded.
#pragma once

#include <mutex>
#include <span>

#include "base/futex.hpp"
#include "driver/nccl_library.hpp"
#include "transport/cuda_device.hpp"
#include "transport/remote_memory.hpp"

namespace hpcore::transport {

class NcclComm {
 public:
  struct Part {
    bool sends = false;
    uint64_t address = 0;
    uint64_t bytes = 0;
  };
  // Asked while waiting: what is wrong with the peer.
  using Check = std::function<Status()>;

  // kTimeout: the others did not come. kSystem: NCCL's own words.
  static Result<std::unique_ptr<NcclComm>> open(std::shared_ptr<CudaDevice> device,
                                                const driver::NcclLibrary& library,
                                                const driver::nccl::UniqueId& id, int rank,
                                                int ranks, TimePoint deadline, const Check& check);
  ~NcclComm() { abort(); }
  NcclComm(const NcclComm&) = delete;
  NcclComm& operator=(const NcclComm&) = delete;

  // One group on the stream: all parts with the same peer.
  [[nodiscard]] Status exchange(std::span<const Part> parts, int peer, driver::cuda::Stream* stream,
                                TimePoint deadline, const Check& check);
  // What went wrong since; kAborted after abort().
  [[nodiscard]] Status error();
  void abort();  // twice is fine

 private:
  NcclComm(std::shared_ptr<CudaDevice> device, const driver::NcclLibrary& library)
      : device_(std::move(device)), library_(library) {}
  Status settle(driver::nccl::Result result, const std::string& what, TimePoint deadline,
                const Check& check);
  Status start(std::span<const Part> parts, int peer, driver::cuda::Stream* stream,
               driver::nccl::Result* result);
  driver::nccl::Result poll();
  [[nodiscard]] Status failure(driver::nccl::Result result, const std::string& what);

  std::shared_ptr<CudaDevice> device_;
  driver::NcclLibrary library_;
  std::mutex mutex_;  // calls on one communicator must not overlap
  driver::nccl::Comm* comm_ = nullptr;
};

}  // namespace hpcore::transport
