// How a pull opens sources whose state lies in device memory.
#include <sys/syscall.h>

#include "state/pull.hpp"
#include "transport/cuda_ipc.hpp"
#include "transport/nccl_memory.hpp"

namespace hpcore::state {
namespace {

using Opened = Result<std::unique_ptr<transport::RemoteMemory>>;

// An address that does not fit is everybody's error; whatever else fails is a reason for the next
// way.
bool is_fatal(const Status& status) {
  return status.code() == Code::kMismatch || status.code() == Code::kCorrupt ||
         status.code() == Code::kInvalid;
}

template <typename Memory>
Opened as_memory(Result<std::unique_ptr<Memory>> opened) {
  if (!opened.ok()) return opened.status();
  return std::unique_ptr<transport::RemoteMemory>(std::move(opened.value()));
}

}  // namespace

Result<std::unique_ptr<transport::RemoteMemory>> Pull::open_cuda_ipc(size_t index) {
  const SourcePlace& place = options_.sources[index];
  Source& source = sources_[index];
  std::unique_ptr<transport::RemoteMemory> other;  // for what lies on the host
  if (place.exposure_area != nullptr) {
    const transport::RemoteProcess process{
        place.pid, &source.regions, Exposure(place.exposure_area).staging(), options_.generation};
    auto opened = transport::open_remote_memory(process, options_.method);
    if (opened.ok()) other = std::move(opened.value());
  }
  return as_memory(transport::CudaIpcMemory::open(options_.device, place.device_address,
                                                  options_.generation, regions_,
                                                  transport::LaneOptions{}, std::move(other)));
}

// Where the exposure area is not in this node's shared memory it is read from the source's server.
Status Pull::open_exposure(size_t index, std::unique_ptr<transport::RemoteMemory> memory) {
  const SourcePlace& place = options_.sources[index];
  Source& source = sources_[index];
  if (place.exposure_area != nullptr) {
    source.exposure = Exposure(place.exposure_area);
    source.process = Fd(static_cast<int>(syscall(SYS_pidfd_open, place.pid, 0)));
    source.memory = std::move(memory);
    return {};
  }
  if (place.nccl_address.empty()) {
    return {Code::kInvalid, "the digests of slot " + std::to_string(place.slot) +
                                " are neither in shared memory nor to be asked for"};
  }
  const uint64_t digests = first_digested(index + 1, chunks_, sources_.size()) -
                           first_digested(index, chunks_, sources_.size());
  auto area =
      transport::NcclArea::open(place.nccl_address, options_.generation, options_.nccl->options);
  if (!area.ok()) return area.status();
  source.remote = RemoteExposure::over(std::move(memory), std::move(area.value()), digests);
  source.exposure = Exposure(source.remote->area());
  source.memory = source.remote->take_memory();
  return source.remote->refresh([this] { return stopped(); });
}

// CUDA IPC where there is an address for it, else NCCL; what could not be used is noted.
Status Pull::open_device_source(size_t index) {
  const SourcePlace& place = options_.sources[index];
  Source& source = sources_[index];
  source.regions = transport::RegionMap(place.regions);
  if (options_.device == nullptr) {
    return {Code::kInvalid, "slot " + std::to_string(place.slot) +
                                " holds its state in device memory, and this receiver was given "
                                "no device"};
  }
  Opened opened = Status(Code::kUnsupported, "there is no way to its device memory");
  if (!place.device_address.empty()) {
    opened = open_cuda_ipc(index);
    if (!opened.ok() && !place.nccl_address.empty() && !is_fatal(opened.status())) {
      notes_ += (notes_.empty() ? "" : "; ") + std::string("slot ") + std::to_string(place.slot) +
                ": " + opened.status().message() + "; NCCL instead";
    }
  }
  const bool next = !opened.ok() && !is_fatal(opened.status()) && !place.nccl_address.empty();
  if (next && options_.nccl != nullptr) {
    opened = as_memory(transport::NcclMemory::open(
        options_.device, options_.nccl->library, place.nccl_address, options_.generation, regions_,
        place.unique_id, options_.nccl->options));
  }
  if (!opened.ok() && is_fatal(opened.status())) return opened.status();
  source.trouble = opened.ok() ? open_exposure(index, std::move(opened.value())) : opened.status();
  if (!source.trouble.ok()) return is_fatal(source.trouble) ? source.trouble : Status();
  if (!place.pace.none()) {
    source.memory = std::make_unique<transport::PacedMemory>(std::move(source.memory), place.pace);
  }
  work_->in(index);
  return {};
}

}  // namespace hpcore::state
