#include "collective/world_channel.hpp"

#include <algorithm>

namespace hpcore::collective {
namespace {

Status check_slots(const roster::Worker& worker, int rank, const std::vector<int>& slots) {
  if (rank < 0 || rank >= static_cast<int>(slots.size())) {
    return {Code::kInvalid, "rank " + std::to_string(rank) + " is not among the " +
                                std::to_string(slots.size()) + " ranks of the roster"};
  }
  if (slots[static_cast<size_t>(rank)] != worker.slot()) {
    return {Code::kInvalid, "the roster gives rank " + std::to_string(rank) + " to slot " +
                                std::to_string(slots[static_cast<size_t>(rank)]) +
                                ", but this worker has slot " + std::to_string(worker.slot())};
  }
  for (size_t i = 0; i < slots.size(); ++i) {
    const bool twice = std::find(slots.begin(), slots.begin() + static_cast<long>(i), slots[i]) !=
                       slots.begin() + static_cast<long>(i);
    if (worker.segment()->has_slot(slots[i]) && !twice) continue;
    return {
        Code::kInvalid,
        "the roster gives rank " + std::to_string(i) + " slot " + std::to_string(slots[i]) +
            (twice ? ", which another rank has too" : ", which the node segment does not have")};
  }
  return {};
}

}  // namespace

Result<std::shared_ptr<Channel>> world_channel(const std::shared_ptr<roster::Worker>& worker,
                                               uint64_t generation, int rank,
                                               const std::vector<int>& slots) {
  HPCORE_RETURN_IF_ERROR(check_slots(*worker, rank, slots));
  const roster::NodeSegment& segment = *worker->segment();
  Result<AreaLayout> layout =
      AreaLayout::of(segment.channel_area(worker->slot()).size(), static_cast<int>(slots.size()));
  HPCORE_RETURN_IF_ERROR(layout.status());
  ChannelMemory memory;
  memory.buffer_bytes = layout.value().buffer_bytes;
  memory.ring_bytes = layout.value().ring_bytes;
  memory.keep_alive = worker->segment();
  for (const int slot : slots) {
    memory.members.push_back(
        layout.value().member(segment.channel_area(slot).data(), &segment.slot_doorbell(slot)));
  }
  return Channel::create(std::move(memory), rank, generation, worker->revocation());
}

}  // namespace hpcore::collective
