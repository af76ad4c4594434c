// Purpose: RemoteMemory over libfabric: one-sided reads of what a FabricServer exposed, from any
// host. Each thread that reads has a lane of its own, kept for the next read.
// Threads: thread-safe. Ownership: shares the fabric. Memory that is read into stays registered
// (where the provider needs that) until Fabric::release().
#pragma once

#include <mutex>

#include "transport/fabric_lane.hpp"

namespace hpcore::transport {

class FabricMemory final : public RemoteMemory {
 public:
  // kCorrupt: the address is damaged. kMismatch: another generation, other regions than
  // `expected`, or a provider that does not speak ours.
  static Result<std::unique_ptr<FabricMemory>> open(std::shared_ptr<Fabric> fabric,
                                                    const std::string& address, uint64_t generation,
                                                    const RegionMap& expected);
  [[nodiscard]] Status read(uint64_t offset, uint64_t bytes, const RegionMap& into,
                            const StopCondition& stop) override;
  [[nodiscard]] Status stream(uint64_t offset, uint64_t bytes, const RegionMap& into,
                              const StopCondition& stop, const Arrival& arrival) override;
  [[nodiscard]] Status digest(uint64_t offset, uint64_t bytes, Digester* digester,
                              const StopCondition& stop) override;
  [[nodiscard]] std::string method() const override;
  [[nodiscard]] std::string note() const override;
  // While at least one read was under way; 0 before the first.
  [[nodiscard]] double bytes_per_s() const;

 private:
  FabricMemory(std::shared_ptr<Fabric> fabric, std::shared_ptr<const FabricPeer> peer)
      : fabric_(std::move(fabric)), peer_(std::move(peer)) {}
  Result<std::unique_ptr<FabricLane>> take_lane();
  void begin_read();
  void end_read(std::unique_ptr<FabricLane> lane, uint64_t bytes);

  std::shared_ptr<Fabric> fabric_;
  std::shared_ptr<const FabricPeer> peer_;
  mutable std::mutex mutex_;
  std::vector<std::unique_ptr<FabricLane>> idle_;
  unsigned readers_ = 0;
  TimePoint busy_since_;
  Clock::duration busy_{};
  uint64_t bytes_ = 0;
  bool emulated_ = false;
};

}  // namespace hpcore::transport
