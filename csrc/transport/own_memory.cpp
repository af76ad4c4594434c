#include "transport/own_memory.hpp"

#include <thread>

namespace hpcore::transport {

Result<std::unique_ptr<OwnDeviceMemory>> OwnDeviceMemory::open(std::shared_ptr<CudaDevice> device,
                                                               const RegionMap& regions,
                                                               uint64_t stream) {
  std::unique_ptr<OwnDeviceMemory> made(new OwnDeviceMemory);
  made->regions_ = regions;
  Result<CudaEvent> ready = CudaEvent::create(device);
  if (!ready.ok()) return ready.status();
  made->ready_ = std::move(ready.value());
  HPCORE_RETURN_IF_ERROR(made->ready_.record(reinterpret_cast<driver::cuda::Stream*>(stream)));
  OwnDeviceMemory* self = made.get();
  DeviceLane::Ways ways;
  ways.fetch = [self](std::span<DeviceLane::Slot* const>, uint64_t offset, uint64_t bytes,
                      const RegionMap& into) {
    std::vector<iovec> to;
    std::vector<iovec> from;
    into.pieces(offset, bytes, &to);
    self->regions_.pieces(offset, bytes, &from);
    return self->lane_->copy(to, from);
  };
  auto lane = DeviceLane::open(std::move(device), LaneOptions{}, std::move(ways));
  if (!lane.ok()) return lane.status();
  made->lane_ = std::move(lane.value());
  return made;
}

Status OwnDeviceMemory::await_ready(const StopCondition& stop) const {
  for (;;) {
    const Result<bool> done = ready_.done();
    if (!done.ok()) return done.status();
    if (done.value()) return {};
    if (stop()) return {Code::kAborted, "publishing state was stopped"};
    std::this_thread::sleep_for(std::chrono::microseconds(50));
  }
}

Status OwnDeviceMemory::digest(uint64_t offset, uint64_t bytes, Digester* digester,
                               const StopCondition& stop) {
  return lane_->run(offset, bytes, nullptr, stop, nullptr, digester);
}

}  // namespace hpcore::transport
