// Purpose: state in the device memory of another process of this node, read by CUDA IPC: the
// source says once where its memory is (CudaIpcExport), readers map it and copy out of it with a
// stream of their own (CudaIpcMemory). The source does nothing for a read, its streams are not
// involved. Regions that lie in host memory are left to another reader.
// Needs: both processes see the device (uuid), memory of cudaMalloc (torch's expandable segments
// have no handle).
// Threads: thread-safe. Ownership: both share the device. The source must not free or write the
// memory while somebody may read it; a reader's mapping keeps it alive, but not its content.
// What lies between: readers wait for an event that the export records on the source's stream, so
// that what was still being computed when it was exported is not read early.
#pragma once

#include "base/fd.hpp"
#include "base/process_identity.hpp"
#include "transport/device_lane.hpp"

namespace hpcore::transport {

struct CudaIpcAddress {
  struct Allocation {
    uint64_t base = 0;  // in the source
    uint64_t bytes = 0;
    driver::cuda::IpcHandle handle{};
  };
  uint64_t generation = 0;
  std::string device;  // uuid
  ProcessIdentity process;
  driver::cuda::IpcHandle ready{};  // an event
  std::vector<Allocation> allocations;
  std::vector<Region> regions;

  [[nodiscard]] std::string encode() const;
  static Result<CudaIpcAddress> decode(const std::string& bytes);
};

class CudaIpcExport {
 public:
  // `stream`: what computed the state last; 0: the legacy default stream. kUnsupported where the
  // driver gives no handle.
  static Result<std::unique_ptr<CudaIpcExport>> open(std::shared_ptr<CudaDevice> device,
                                                     const RegionMap& regions, uint64_t generation,
                                                     uint64_t stream);
  // For CudaIpcMemory::open; valid as long as this object is.
  [[nodiscard]] const std::string& address() const { return address_; }

 private:
  CudaIpcExport() = default;
  CudaEvent ready_;
  std::string address_;
};

class CudaIpcMemory final : public RemoteMemory {
 public:
  // `other` reads regions that are not in device memory; null: they are an error. kCorrupt: the
  // address is damaged. kMismatch: another generation, other regions than `expected`.
  // kUnsupported: the device is not visible here, or refuses. kPeerDead: the source is gone.
  static Result<std::unique_ptr<CudaIpcMemory>> open(std::shared_ptr<CudaDevice> device,
                                                     const std::string& address,
                                                     uint64_t generation, const RegionMap& expected,
                                                     const LaneOptions& options,
                                                     std::unique_ptr<RemoteMemory> other);
  ~CudaIpcMemory() override;
  [[nodiscard]] Status read(uint64_t offset, uint64_t bytes, const RegionMap& into,
                            const StopCondition& stop) override;
  [[nodiscard]] Status stream(uint64_t offset, uint64_t bytes, const RegionMap& into,
                              const StopCondition& stop, const Arrival& arrival) override;
  [[nodiscard]] Status read_digested(uint64_t offset, uint64_t bytes, const RegionMap& into,
                                     Digester* digester, const StopCondition& stop) override;
  [[nodiscard]] Status digest(uint64_t offset, uint64_t bytes, Digester* digester,
                              const StopCondition& stop) override;
  [[nodiscard]] std::string method() const override;

 private:
  CudaIpcMemory(std::shared_ptr<CudaDevice> device, CudaIpcAddress address)
      : device_(std::move(device)), address_(std::move(address)) {}
  Status map();
  Status alive() const;
  Status await_ready(const StopCondition& stop);
  // Calls here(offset, bytes) for stretches that are mapped, there(...) for the others.
  template <typename Here, typename There>
  Status walk(uint64_t offset, uint64_t bytes, const Here& here, const There& there);

  std::shared_ptr<CudaDevice> device_;
  CudaIpcAddress address_;
  std::vector<uint64_t> opened_;  // to be closed
  RegionMap mapped_;              // address 0: not in device memory
  CudaEvent ready_;
  std::atomic<bool> is_ready_{false};
  Fd process_;
  std::unique_ptr<RemoteMemory> other_;
  std::unique_ptr<DeviceLane> lane_;  // goes first
};

}  // namespace hpcore::transport
