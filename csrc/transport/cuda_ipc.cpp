#include "transport/cuda_ipc.hpp"

#include <poll.h>
#include <sys/syscall.h>

#include <algorithm>
#include <thread>

namespace hpcore::transport {
namespace {

namespace cuda = driver::cuda;

}  // namespace

Result<std::unique_ptr<CudaIpcMemory>> CudaIpcMemory::open(
    std::shared_ptr<CudaDevice> device, const std::string& address, uint64_t generation,
    const RegionMap& expected, const LaneOptions& options, std::unique_ptr<RemoteMemory> other) {
  Result<CudaIpcAddress> decoded = CudaIpcAddress::decode(address);
  if (!decoded.ok()) return decoded.status();
  const CudaIpcAddress& peer = decoded.value();
  if (peer.generation != generation) {
    return Status(Code::kMismatch, "the peer's CUDA IPC address is of generation " +
                                       std::to_string(peer.generation) + ", this is generation " +
                                       std::to_string(generation));
  }
  if (Status same = expected.same_sizes(RegionMap(peer.regions), "the peer"); !same.ok()) {
    return same;
  }
  if (const Result<int> seen = cuda_ordinal_of(device->library(), peer.device); !seen.ok()) {
    return Status(Code::kUnsupported, "no CUDA IPC with process " +
                                          std::to_string(peer.process.pid) + ": " +
                                          seen.status().message());
  }
  std::unique_ptr<CudaIpcMemory> made(new CudaIpcMemory(device, std::move(decoded.value())));
  made->other_ = std::move(other);
  if (Status status = made->map(); !status.ok()) return status;
  CudaIpcMemory* self = made.get();
  DeviceLane::Ways ways;
  ways.fetch = [self](std::span<DeviceLane::Slot* const>, uint64_t offset, uint64_t bytes,
                      const RegionMap& into) {
    std::vector<iovec> to;
    std::vector<iovec> from;
    into.pieces(offset, bytes, &to);
    self->mapped_.pieces(offset, bytes, &from);
    return self->lane_->copy(to, from);
  };
  ways.check = [self] { return self->alive(); };
  Result<std::unique_ptr<DeviceLane>> lane =
      DeviceLane::open(std::move(device), options, std::move(ways));
  if (!lane.ok()) return lane.status();
  made->lane_ = std::move(lane.value());
  return made;
}

CudaIpcMemory::~CudaIpcMemory() {
  lane_.reset();
  const CudaDevice::Scope scope(*device_);
  for (const uint64_t base : opened_) (void)device_->library().ipc_close_mem(base);
}

Status CudaIpcMemory::alive() const {
  pollfd process{process_.get(), POLLIN, 0};
  const bool gone = process_.valid() ? poll(&process, 1, 0) == 1 : !process_runs(address_.process);
  if (!gone) return {};
  return {Code::kPeerDead, "process " + std::to_string(address_.process.pid) + " is gone"};
}

Status CudaIpcMemory::map() {
  process_ = Fd(static_cast<int>(syscall(SYS_pidfd_open, address_.process.pid, 0)));
  if (!process_runs(address_.process)) {
    return {Code::kPeerDead, "process " + std::to_string(address_.process.pid) + " is gone"};
  }
  const CudaDevice::Scope scope(*device_);
  Result<CudaEvent> ready = CudaEvent::open(device_, address_.ready);
  if (!ready.ok()) return {Code::kUnsupported, ready.status().message()};
  ready_ = std::move(ready.value());
  for (const CudaIpcAddress::Allocation& at : address_.allocations) {
    uint64_t base = 0;
    const Status opened =
        device_->status(device_->library().ipc_open_mem(&base, at.handle, cuda::kIpcLazyPeerAccess),
                        "mapping device memory of process " + std::to_string(address_.process.pid));
    if (!opened.ok()) return {Code::kUnsupported, opened.message()};
    opened_.push_back(base);
  }
  std::vector<Region> mapped;
  for (const Region& region : address_.regions) {
    Region here{0, region.bytes};
    for (size_t i = 0; i < opened_.size(); ++i) {
      const CudaIpcAddress::Allocation& at = address_.allocations[i];
      if (region.address < at.base || region.address - at.base >= at.bytes) continue;
      if (region.bytes > at.bytes - (region.address - at.base)) {
        return {Code::kCorrupt, "a peer's CUDA IPC address is damaged: a region's end"};
      }
      here.address = opened_[i] + (region.address - at.base);
    }
    if (here.address == 0 && region.bytes > 0 && other_ == nullptr) {
      return {Code::kUnsupported, "the state of process " + std::to_string(address_.process.pid) +
                                      " lies partly in host memory, and no way to read that was "
                                      "given"};
    }
    mapped.push_back(here);
  }
  mapped_ = RegionMap(std::move(mapped));
  return {};
}

Status CudaIpcMemory::await_ready(const StopCondition& stop) {
  if (is_ready_.load(std::memory_order_acquire)) return {};
  const double limit_s = lane_->options().answer_limit_s;
  const TimePoint late = Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                            std::chrono::duration<double>(limit_s));
  for (;;) {
    const Result<bool> done = ready_.done();
    if (!done.ok()) return done.status();
    if (done.value()) break;
    HPCORE_RETURN_IF_ERROR(alive());
    if (stop()) return {Code::kAborted, "reading state was stopped"};
    if (Clock::now() >= late) {
      return {Code::kTimeout, "the stream of process " + std::to_string(address_.process.pid) +
                                  " did not come to the state within " + std::to_string(limit_s) +
                                  " s"};
    }
    std::this_thread::sleep_for(std::chrono::microseconds(50));
  }
  is_ready_.store(true, std::memory_order_release);
  return {};
}

template <typename Here, typename There>
Status CudaIpcMemory::walk(uint64_t offset, uint64_t bytes, const Here& here, const There& there) {
  if (offset > mapped_.bytes() || bytes > mapped_.bytes() - offset) {
    return {Code::kInvalid, "a read of bytes " + std::to_string(offset) + " to " +
                                std::to_string(offset + bytes) + " of " +
                                std::to_string(mapped_.bytes())};
  }
  HPCORE_RETURN_IF_ERROR(alive());
  while (bytes > 0) {
    // The longest stretch of one kind.
    size_t region = mapped_.region_at(offset);
    const bool is_here = mapped_.regions()[region].address != 0;
    uint64_t end = offset;
    for (; region < mapped_.regions().size() && end < offset + bytes; ++region) {
      const Region& next = mapped_.regions()[region];
      if (next.bytes > 0 && (next.address != 0) != is_here) break;
      end = std::min(mapped_.start(region) + next.bytes, offset + bytes);
    }
    HPCORE_RETURN_IF_ERROR(is_here ? here(offset, end - offset) : there(offset, end - offset));
    bytes -= end - offset;
    offset = end;
  }
  return {};
}

Status CudaIpcMemory::read(uint64_t offset, uint64_t bytes, const RegionMap& into,
                           const StopCondition& stop) {
  return stream(offset, bytes, into, stop, [](uint64_t, uint64_t) {});
}

Status CudaIpcMemory::stream(uint64_t offset, uint64_t bytes, const RegionMap& into,
                             const StopCondition& stop, const Arrival& arrival) {
  if (bytes > 0) HPCORE_RETURN_IF_ERROR(await_ready(stop));
  return walk(
      offset, bytes,
      [&](uint64_t at, uint64_t length) {
        return lane_->run(at, length, &into, stop, arrival, nullptr);
      },
      [&](uint64_t at, uint64_t length) {
        return other_->stream(at, length, into, stop, arrival);
      });
}

Status CudaIpcMemory::read_digested(uint64_t offset, uint64_t bytes, const RegionMap& into,
                                    Digester* digester, const StopCondition& stop) {
  HPCORE_RETURN_IF_ERROR(await_ready(stop));
  return walk(
      offset, bytes,
      [&](uint64_t at, uint64_t length) {
        return lane_->run(at, length, &into, stop, nullptr, digester);
      },
      [&](uint64_t at, uint64_t length) {
        return other_->read_digested(at, length, into, digester, stop);
      });
}

Status CudaIpcMemory::digest(uint64_t offset, uint64_t bytes, Digester* digester,
                             const StopCondition& stop) {
  HPCORE_RETURN_IF_ERROR(await_ready(stop));
  return walk(
      offset, bytes,
      [&](uint64_t at, uint64_t length) {
        return lane_->run(at, length, nullptr, stop, nullptr, digester);
      },
      [&](uint64_t at, uint64_t length) { return other_->digest(at, length, digester, stop); });
}

std::string CudaIpcMemory::method() const {
  const bool needs_other =
      std::any_of(mapped_.regions().begin(), mapped_.regions().end(),
                  [](const Region& region) { return region.address == 0 && region.bytes > 0; });
  return needs_other ? "cuda-ipc+" + other_->method() : "cuda-ipc";
}

}  // namespace hpcore::transport
