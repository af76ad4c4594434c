// Purpose: digests of this process's own state where it lies in device memory: through pinned host
// memory, piece by piece, on a stream of its own. Each byte crosses the bus once.
// Threads: digest() is thread-safe. Ownership: borrows the regions, shares the device.
#pragma once

#include "transport/device_lane.hpp"

namespace hpcore::transport {

class OwnDeviceMemory {
 public:
  // `stream`: what computed the state last; 0: the legacy default stream.
  static Result<std::unique_ptr<OwnDeviceMemory>> open(std::shared_ptr<CudaDevice> device,
                                                       const RegionMap& regions, uint64_t stream);
  // Until the state is computed. kAborted: `stop` said so.
  [[nodiscard]] Status await_ready(const StopCondition& stop) const;
  [[nodiscard]] Status digest(uint64_t offset, uint64_t bytes, Digester* digester,
                              const StopCondition& stop);

 private:
  OwnDeviceMemory() = default;
  RegionMap regions_;
  CudaEvent ready_;
  std::unique_ptr<DeviceLane> lane_;
};

}  // namespace hpcore::transport
