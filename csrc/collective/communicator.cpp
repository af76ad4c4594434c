#include "collective/communicator.hpp"

#include "collective/operation.hpp"
#include "collective/rehearsal.hpp"

namespace hpcore::collective {

Communicator::Communicator(std::shared_ptr<Channel> channel, int rank, int size)
    : channel_(std::move(channel)), rank_(rank), size_(size) {}

Result<std::shared_ptr<Communicator>> Communicator::create(std::shared_ptr<Channel> channel) {
  const uint64_t seen = channel->own().filled.load(std::memory_order_acquire);
  if (seen != 0 && generation_of(seen) == channel->generation()) {
    return Status(Code::kInvalid,
                  "this worker already had a communicator over this channel in "
                  "generation " +
                      std::to_string(channel->generation()) +
                      "; use that one, or begin a new generation");
  }
  if (generation_of(seen) > channel->generation()) {
    return Status(Code::kRevoked, "generation " + std::to_string(channel->generation()) +
                                      " is over: this worker already takes part in generation " +
                                      std::to_string(generation_of(seen)));
  }
  const int rank = channel->index();
  const int size = channel->size();
  return std::shared_ptr<Communicator>(new Communicator(std::move(channel), rank, size));
}

std::shared_ptr<Communicator> Communicator::rehearsal(int world_size) {
  return std::shared_ptr<Communicator>(new Communicator(nullptr, world_size - 1, world_size));
}

Status Communicator::check_root(const char* what, int root) const {
  if (root >= 0 && root < size_) return {};
  return {Code::kInvalid, std::string(what) + ": root " + std::to_string(root) +
                              " is not a rank; there are " + std::to_string(size_)};
}

void Communicator::abort() {
  aborted_.store(true, std::memory_order_release);
  if (channel_) channel_->abort();
}

Status Communicator::barrier(const Limits& limits) {
  if (rehearsing()) return rehearsal_standing(aborted_);
  Operation op(*this, {.kind = OpKind::kBarrier}, limits);
  HPCORE_RETURN_IF_ERROR(op.begin());
  return op.end(1, op.meet());
}

Status Communicator::broadcast(Buffers buffers, DType dtype, int root, const Limits& limits) {
  HPCORE_RETURN_IF_ERROR(check_root("broadcast", root));
  if (rehearsing()) return rehearsal_standing(aborted_);
  VirtualRange range(buffers, size_of(dtype));
  Operation op(*this, {OpKind::kBroadcast, dtype, {}, root, range.elements()}, limits);
  HPCORE_RETURN_IF_ERROR(op.begin());
  const size_t chunk = op.buffer_bytes();
  const uint64_t steps = (range.bytes() + chunk - 1) / chunk;
  const auto length = [&](uint64_t step) {
    return std::min(chunk, range.bytes() - std::min(range.bytes(), step * chunk));
  };
  const auto fill = [&](uint64_t step, std::byte* to) {
    range.copy_to(to, step * chunk, length(step));
  };
  const auto drain = [&](uint64_t step) {
    if (rank_ != root) range.copy_from(op.buffer(root, step), step * chunk, length(step));
  };
  Status outcome = op.meet(rank_ == root, Operation::kAll, fill);
  if (outcome.ok()) outcome = run_steps(op, steps, root, Operation::kAll, fill, drain);
  return op.end(steps, std::move(outcome));
}

Result<std::vector<std::string>> Communicator::all_gather_bytes(std::string_view data,
                                                                const Limits& limits) {
  if (rehearsing()) {
    HPCORE_RETURN_IF_ERROR(rehearsal_standing(aborted_));
    return std::vector<std::string>(static_cast<size_t>(size_), std::string(data));
  }
  Operation op(*this,
               {.kind = OpKind::kAllGatherBytes, .elements = data.size(), .same_elements = false},
               limits);
  HPCORE_RETURN_IF_ERROR(op.begin());
  op.own_sizes()[0] = data.size();
  const size_t chunk = op.buffer_bytes();
  const auto part = [&](uint64_t step, size_t bytes) {
    const size_t from = std::min(bytes, step * chunk);
    return std::pair(from, std::min(chunk, bytes - from));
  };
  const auto fill = [&](uint64_t step, std::byte* to) {
    const auto [from, length] = part(step, data.size());
    if (length != 0) std::memcpy(to, data.data() + from, length);
  };
  std::vector<std::string> gathered(static_cast<size_t>(size_));
  const auto drain = [&](uint64_t step) {
    for (int other = 0; other < size_; ++other) {
      std::string& target = gathered[static_cast<size_t>(other)];
      const auto [from, length] = part(step, target.size());
      if (other != rank_ && length != 0) {
        std::memcpy(target.data() + from, op.buffer(other, step), length);
      }
    }
  };
  Status outcome = op.meet(true, Operation::kAll, fill);
  std::vector<size_t> sizes;
  for (int other = 0; other < size_; ++other) sizes.push_back(op.sizes_of(other)[0]);
  if (outcome.ok()) outcome = op.valid();
  const size_t most = *std::max_element(sizes.begin(), sizes.end());
  const uint64_t steps = (most + chunk - 1) / chunk;
  if (outcome.ok()) {
    for (size_t other = 0; other < sizes.size(); ++other) gathered[other].resize(sizes[other]);
    gathered[static_cast<size_t>(rank_)] = data;
    outcome = run_steps(op, steps, Operation::kAll, Operation::kAll, fill, drain);
  }
  outcome = op.end(steps, std::move(outcome));
  if (!outcome.ok()) return outcome;
  return gathered;
}

}  // namespace hpcore::collective
