// Purpose: RemoteMemory over NCCL: what an NcclServer exposed, received piece by piece straight
// into this process's device memory (or through the lane's staging, where it lies in pieces or on
// the host). Two-sided: the source must run. NcclArea: the source's exposure area, as bytes.
// Threads: thread-safe. Ownership: shares the device. A link that failed stays so: a new one needs
// a new unique id.
#pragma once

#include "transport/nccl_link.hpp"

namespace hpcore::transport {

// What a process opens links with.
struct NcclAccess {
  driver::NcclLibrary library;
  NcclOptions options;
};

class NcclMemory final : public RemoteMemory {
 public:
  // Blocks until NCCL is up. kCorrupt: the address is damaged. kMismatch: another generation,
  // other regions than `expected`, or an id that the source does not know. kTimeout: the source did
  // not come. kPeerDead: it is gone.
  static Result<std::unique_ptr<NcclMemory>> open(std::shared_ptr<CudaDevice> device,
                                                  const driver::NcclLibrary& library,
                                                  const std::string& address, uint64_t generation,
                                                  const RegionMap& expected,
                                                  const std::string& unique_id,
                                                  const NcclOptions& options);
  ~NcclMemory() override;
  [[nodiscard]] Status read(uint64_t offset, uint64_t bytes, const RegionMap& into,
                            const StopCondition& stop) override;
  [[nodiscard]] Status stream(uint64_t offset, uint64_t bytes, const RegionMap& into,
                              const StopCondition& stop, const Arrival& arrival) override;
  [[nodiscard]] Status read_digested(uint64_t offset, uint64_t bytes, const RegionMap& into,
                                     Digester* digester, const StopCondition& stop) override;
  [[nodiscard]] Status digest(uint64_t offset, uint64_t bytes, Digester* digester,
                              const StopCondition& stop) override;
  [[nodiscard]] std::string method() const override { return "nccl"; }

 private:
  NcclMemory(std::shared_ptr<CudaDevice> device, const NcclOptions& options)
      : device_(std::move(device)), options_(options) {}
  Status connect(const driver::NcclLibrary& library, const NcclAddress& address,
                 const driver::nccl::UniqueId& id);
  Status fetch(std::span<DeviceLane::Slot* const> slots, uint64_t offset, uint64_t bytes,
               const RegionMap& into);
  Status check();
  Status heard();  // what the source says
  Status run(uint64_t offset, uint64_t bytes, const RegionMap* into, const StopCondition& stop,
             const Arrival& arrival, Digester* digester);

  std::shared_ptr<CudaDevice> device_;
  const NcclOptions options_;
  uint64_t total_bytes_ = 0;
  ControlSocket socket_;
  std::mutex hearing_;
  std::unique_ptr<NcclComm> comm_;
  std::unique_ptr<DeviceLane> lane_;  // goes first
};

class NcclArea final : public RemoteMemory {
 public:
  static Result<std::unique_ptr<NcclArea>> open(const std::string& address, uint64_t generation,
                                                const NcclOptions& options);
  [[nodiscard]] Status read(uint64_t offset, uint64_t bytes, const RegionMap& into,
                            const StopCondition& stop) override;
  [[nodiscard]] std::string method() const override { return "control connection"; }

 private:
  explicit NcclArea(const NcclOptions& options) : options_(options) {}
  const NcclOptions options_;
  std::mutex mutex_;  // one read at a time
  ControlSocket socket_;
};

}  // namespace hpcore::transport
