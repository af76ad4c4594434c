#include "transport/nccl_comm.hpp"

#include <thread>

namespace hpcore::transport {
namespace {

namespace nccl = driver::nccl;

constexpr auto kLook = std::chrono::microseconds(100);

}  // namespace

Status NcclComm::failure(nccl::Result result, const std::string& what) {
  const Code code = result == nccl::kRemoteError ? Code::kPeerDead : Code::kSystem;
  return {code, what + ": " + library_.error_text(result, comm_)};
}

Result<std::unique_ptr<NcclComm>> NcclComm::open(std::shared_ptr<CudaDevice> device,
                                                 const driver::NcclLibrary& library,
                                                 const nccl::UniqueId& id, int rank, int ranks,
                                                 TimePoint deadline, const Check& check) {
  std::unique_ptr<NcclComm> made(new NcclComm(std::move(device), library));
  nccl::Config config = library.config();
  nccl::Result result = nccl::kSuccess;
  {
    const CudaDevice::Scope scope(*made->device_);
    const std::scoped_lock lock(made->mutex_);
    result = library.comm_init_rank_config(&made->comm_, ranks, id, rank, &config);
  }
  const std::string what =
      "bringing NCCL up as rank " + std::to_string(rank) + " of " + std::to_string(ranks);
  if (Status status = made->settle(result, what, deadline, check); !status.ok()) return status;
  return made;
}

nccl::Result NcclComm::poll() {
  const CudaDevice::Scope scope(*device_);
  const std::scoped_lock lock(mutex_);
  if (comm_ == nullptr) return nccl::kInvalidUsage;
  nccl::Result state = nccl::kSuccess;
  const nccl::Result asked = library_.comm_get_async_error(comm_, &state);
  return asked == nccl::kSuccess ? state : asked;
}

// Waits until a nonblocking call is through.
Status NcclComm::settle(nccl::Result result, const std::string& what, TimePoint deadline,
                        const Check& check) {
  if (result == nccl::kSuccess) result = poll();
  while (result == nccl::kInProgress) {
    if (Clock::now() >= deadline) {
      abort();
      return {Code::kTimeout, what + ": the others did not come in time"};
    }
    if (Status status = check(); !status.ok()) {
      abort();
      return status;
    }
    std::this_thread::sleep_for(kLook);
    result = poll();
  }
  if (result == nccl::kSuccess) return {};
  const Status status = failure(result, what);
  abort();
  return status;
}

Status NcclComm::start(std::span<const Part> parts, int peer, driver::cuda::Stream* stream,
                       nccl::Result* result) {
  auto* on = reinterpret_cast<nccl::Stream*>(stream);
  const CudaDevice::Scope scope(*device_);
  const std::scoped_lock lock(mutex_);
  if (comm_ == nullptr) return {Code::kAborted, "the NCCL communicator was aborted"};
  *result = library_.group_start();
  for (const Part& part : parts) {
    if (*result != nccl::kSuccess) break;
    auto* at = reinterpret_cast<void*>(part.address);
    *result = part.sends ? library_.send(at, part.bytes, nccl::kUint8, peer, comm_, on)
                         : library_.recv(at, part.bytes, nccl::kUint8, peer, comm_, on);
  }
  const nccl::Result ended = library_.group_end();
  if (*result == nccl::kSuccess || *result == nccl::kInProgress) *result = ended;
  return {};
}

Status NcclComm::exchange(std::span<const Part> parts, int peer, driver::cuda::Stream* stream,
                          TimePoint deadline, const Check& check) {
  nccl::Result result = nccl::kSuccess;
  HPCORE_RETURN_IF_ERROR(start(parts, peer, stream, &result));
  return settle(result, "moving state by NCCL", deadline, check);
}

Status NcclComm::error() {
  {
    const std::scoped_lock lock(mutex_);
    if (comm_ == nullptr) return {Code::kAborted, "the NCCL communicator was aborted"};
  }
  const nccl::Result state = poll();
  if (state == nccl::kSuccess || state == nccl::kInProgress) return {};
  return failure(state, "moving state by NCCL");
}

void NcclComm::abort() {
  const CudaDevice::Scope scope(*device_);
  const std::scoped_lock lock(mutex_);
  if (comm_ != nullptr) (void)library_.comm_abort(comm_);
  comm_ = nullptr;
}

}  // namespace hpcore::transport
