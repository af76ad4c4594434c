// NodeSegment: the notice board. The newest notice stays whole while the next one is written.
#include <algorithm>
#include <climits>

#include "base/shared_copy.hpp"
#include "roster/node_segment.hpp"

namespace hpcore::roster {

void NodeSegment::wake_board() const {
  header().board_futex.fetch_add(1, std::memory_order_seq_cst);
  futex_wake(header().board_futex, INT_MAX);
}

Status NodeSegment::publish(uint64_t generation, const std::string& roster) {
  if (roster.size() > kBoardBytes) {
    return {Code::kNoSpace, "a roster of " + std::to_string(roster.size()) +
                                " bytes does not fit the notice board (" +
                                std::to_string(kBoardBytes) + ")"};
  }
  const uint64_t newest = board_generation();
  if (generation <= newest) {
    return {Code::kInvalid, "generation " + std::to_string(generation) +
                                " is not newer than the published " + std::to_string(newest)};
  }
  Board& board = this->board(this->board(0).generation.load() == newest ? 1 : 0);
  board.generation.store(0);
  std::atomic_thread_fence(std::memory_order_release);
  copy_to_shared(board.bytes, roster.data(), roster.size());
  board.size_bytes.store(roster.size());
  board.generation.store(generation);
  header().board_generation.store(generation);
  wake_board();
  ring_all_slots();
  // Who died after it was chosen was not yet a member for the watch: look once more.
  for (const int slot : ranked()) revoke_if_member_died(slot);
  return {};
}

std::optional<Notice> NodeSegment::notice() const {
  for (;;) {
    const uint64_t generation = board_generation();
    if (generation == 0) return std::nullopt;
    for (const int which : {0, 1}) {
      const Board& board = this->board(which);
      if (board.generation.load() != generation) continue;
      std::string bytes(std::min<size_t>(board.size_bytes.load(), kBoardBytes), '\0');
      copy_from_shared(bytes.data(), board.bytes, bytes.size());
      std::atomic_thread_fence(std::memory_order_acquire);
      if (board.generation.load() == generation) return Notice{generation, std::move(bytes)};
    }
    // Both are newer than what was read: two more have been published meanwhile.
  }
}

uint64_t NodeSegment::board_generation() const { return header().board_generation.load(); }

}  // namespace hpcore::roster
