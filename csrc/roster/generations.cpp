// NodeSegment: opening, closing and publishing generations, and rank blobs.
#include <algorithm>
#include <climits>
#include <cstring>

#include "roster/commit_word.hpp"
#include "roster/node_segment.hpp"

namespace hpcore::roster {
namespace {

constexpr size_t round_up(size_t value, size_t unit) { return (value + unit - 1) / unit * unit; }

void raise_to(std::atomic<uint64_t>& word, uint64_t value) {
  uint64_t seen = word.load(std::memory_order_relaxed);
  while (seen < value && !word.compare_exchange_weak(seen, value, std::memory_order_acq_rel)) {
  }
}

}  // namespace

Status NodeSegment::set_ranked(const std::vector<int>& slots) {
  uint64_t mask = 0;
  for (const int slot : slots) {
    if (!has_slot(slot)) return {Code::kNotFound, "there is no slot " + std::to_string(slot)};
    mask |= 1ULL << static_cast<unsigned>(slot);
  }
  for (size_t rank = 0; rank < slots.size(); ++rank)
    header().ranked_order[rank].store(static_cast<uint8_t>(slots[rank]));
  header().ranked_count.store(static_cast<uint32_t>(slots.size()));
  header().ranked_mask.store(mask, std::memory_order_release);
  return {};
}

std::vector<int> NodeSegment::ranked() const {
  std::vector<int> slots(header().ranked_count.load());
  for (size_t rank = 0; rank < slots.size(); ++rank)
    slots[rank] = header().ranked_order[rank].load();
  return slots;
}

bool NodeSegment::is_ranked(int slot) const {
  return (header().ranked_mask.load(std::memory_order_acquire) >> static_cast<unsigned>(slot) &
          1) != 0;
}

Status NodeSegment::open_commit(const std::vector<int>& slots, uint64_t generation,
                                uint64_t steps) {
  if (generation == 0 || generation >= CommitWord::kGenerationLimit ||
      steps > CommitWord::kStepsMask) {
    return {Code::kInvalid, "generation " + std::to_string(generation) + " or steps " +
                                std::to_string(steps) +
                                " do not fit a commit word (23 and 40 bits)"};
  }
  for (const int slot : slots)
    if (!has_slot(slot)) return {Code::kNotFound, "there is no slot " + std::to_string(slot)};
  header().opened_steps.store(steps, std::memory_order_relaxed);
  header().opened_generation.store(generation, std::memory_order_release);
  for (const int slot : slots)
    this->slot(slot).commit.store(CommitWord{generation, false, steps}.pack(),
                                  std::memory_order_release);
  return {};
}

std::vector<uint64_t> NodeSegment::close_generation(uint64_t generation) {
  std::vector<uint64_t> steps;
  for (const int slot : ranked()) steps.push_back(close_commit(this->slot(slot).commit).steps);
  raise_to(header().revoked_generation, generation);
  wake_board();
  ring_ranked();
  return steps;
}

void NodeSegment::ring_ranked() const {
  uint64_t mask = header().ranked_mask.load(std::memory_order_acquire);
  for (; mask != 0; mask &= mask - 1) slot_doorbell(__builtin_ctzll(mask)).ring();
}

void NodeSegment::wake_board() const {
  header().board_futex.fetch_add(1, std::memory_order_seq_cst);
  futex_wake(header().board_futex, INT_MAX);
}

Board& NodeSegment::board(uint64_t generation) const {
  const size_t at = round_up(sizeof(Header), kPage) + sizeof(Board) * (generation & 1);
  return *reinterpret_cast<Board*>(mapping_.data() + at);
}

Status NodeSegment::publish(uint64_t generation, const std::string& roster) {
  if (roster.size() > kBoardBytes) {
    return {Code::kNoSpace, "a roster of " + std::to_string(roster.size()) +
                                " bytes does not fit the notice board (" +
                                std::to_string(kBoardBytes) + ")"};
  }
  if (generation <= board_generation()) {
    return {Code::kInvalid, "generation " + std::to_string(generation) +
                                " is not newer than the published " +
                                std::to_string(board_generation())};
  }
  Board& board = this->board(generation);
  board.generation.store(0, std::memory_order_seq_cst);
  std::memcpy(board.bytes, roster.data(), roster.size());
  board.size_bytes.store(roster.size());
  board.generation.store(generation, std::memory_order_seq_cst);
  header().board_generation.store(generation, std::memory_order_release);
  wake_board();
  ring_ranked();
  return {};
}

std::optional<Notice> NodeSegment::notice() const {
  for (;;) {
    const uint64_t generation = board_generation();
    if (generation == 0) return std::nullopt;
    const Board& board = this->board(generation);
    if (board.generation.load(std::memory_order_acquire) != generation) continue;
    const size_t size = std::min<size_t>(board.size_bytes.load(), kBoardBytes);
    std::string bytes(reinterpret_cast<const char*>(board.bytes), size);
    std::atomic_thread_fence(std::memory_order_acquire);
    if (board.generation.load() == generation) return Notice{generation, std::move(bytes)};
  }
}

uint64_t NodeSegment::board_generation() const {
  return header().board_generation.load(std::memory_order_acquire);
}

uint64_t NodeSegment::revoked_generation() const {
  return header().revoked_generation.load(std::memory_order_acquire);
}

Blob& NodeSegment::blob(int rank, int which) const {
  const size_t begin = round_up(sizeof(Header), kPage) + round_up(2 * sizeof(Board), kPage);
  const size_t index = static_cast<size_t>(rank) * 2 + static_cast<size_t>(which);
  return *reinterpret_cast<Blob*>(mapping_.data() + begin + index * sizeof(Blob));
}

Status NodeSegment::set_rank_blob(int rank, uint64_t tag, const std::string& bytes) {
  if (rank < 0 || rank >= kMaxSlots)
    return {Code::kNotFound, "there is no rank " + std::to_string(rank)};
  if (bytes.size() > kBlobBytes) {
    return {Code::kNoSpace, "rank-local state of " + std::to_string(bytes.size()) +
                                " bytes; the limit is " + std::to_string(kBlobBytes) +
                                ": track larger state with job.track"};
  }
  const uint64_t first = blob(rank, 0).sequence.load();
  const uint64_t second = blob(rank, 1).sequence.load();
  // A step that is run again writes its tag again: over itself, never over the boundary before it.
  int which = first <= second ? 0 : 1;
  for (const int same : {0, 1}) {
    const Blob& blob = this->blob(rank, same);
    if (blob.sequence.load() != 0 && blob.tag.load() == tag) which = same;
  }
  Blob& older = blob(rank, which);
  older.sequence.store(0, std::memory_order_seq_cst);
  std::memcpy(older.bytes, bytes.data(), bytes.size());
  older.size_bytes.store(bytes.size());
  older.tag.store(tag);
  older.sequence.store(std::max(first, second) + 1, std::memory_order_seq_cst);
  return {};
}

std::vector<TaggedBlob> NodeSegment::rank_blob(int rank) const {
  std::vector<std::pair<uint64_t, TaggedBlob>> found;
  for (int which = 0; which < 2 && rank >= 0 && rank < kMaxSlots; ++which) {
    const Blob& blob = this->blob(rank, which);
    const uint64_t sequence = blob.sequence.load(std::memory_order_acquire);
    if (sequence == 0) continue;
    const size_t size = std::min<size_t>(blob.size_bytes.load(), kBlobBytes);
    TaggedBlob copy{blob.tag.load(), std::string(reinterpret_cast<const char*>(blob.bytes), size)};
    std::atomic_thread_fence(std::memory_order_acquire);
    if (blob.sequence.load() == sequence) found.emplace_back(sequence, std::move(copy));
  }
  std::sort(found.begin(), found.end(), [](auto& a, auto& b) { return a.first > b.first; });
  std::vector<TaggedBlob> blobs;
  for (auto& entry : found) blobs.push_back(std::move(entry.second));
  return blobs;
}

}  // namespace hpcore::roster
