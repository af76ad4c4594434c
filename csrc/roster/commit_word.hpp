// Purpose: one worker's word on how far it is: generation:23 | closed:1 | steps:40. `steps` = s+1
// means "my gradients of step s are complete". Within a generation steps only grow, and a closed
// word never changes; so all who look agree: step s is committed exactly if every member's word has
// steps > s, and is discarded as soon as one is closed below. When all words of a generation are
// closed, C = min(steps) goes into the header's ledger, before any word may be opened for a newer
// generation: who comes late reads it there.
// With other nodes there is one word more, the header's `peers`: what all of them have said ready
// for as far as this node knows, which may be less than the truth. A step that this node's words
// and `peers` are both beyond is committed. If at the close only `peers` is behind, it is open
// whether the step was committed elsewhere: C is the minimum over the nodes that are left, whose
// frozen words the agents compare; settle() brings it. No node can know of more than the others
// have said, so C is never below what anybody has seen committed. Threads: plain functions on
// values; the words are std::atomic<uint64_t> in the slots.
#pragma once

#include <atomic>
#include <cstdint>

namespace hpcore::roster {

struct CommitWord {
  uint64_t generation = 0;
  bool closed = false;
  uint64_t steps = 0;

  static constexpr uint64_t kStepsMask = (1ULL << 40) - 1;
  static constexpr uint64_t kClosedBit = 1ULL << 40;
  static constexpr uint64_t kGenerationLimit = 1ULL << 23;

  static constexpr CommitWord unpack(uint64_t word) {
    return {word >> 41, (word & kClosedBit) != 0, word & kStepsMask};
  }
  [[nodiscard]] constexpr uint64_t pack() const {
    return generation << 41 | (closed ? kClosedBit : 0) | (steps & kStepsMask);
  }
};

inline CommitWord look(const std::atomic<uint64_t>& word) {
  return CommitWord::unpack(word.load(std::memory_order_seq_cst));
}

// (generation, open, step) -> (generation, open, step + 1); false if the word is anything else.
inline bool advance_commit(std::atomic<uint64_t>& word, uint64_t generation, uint64_t step) {
  uint64_t expected = CommitWord{generation, false, step}.pack();
  return word.compare_exchange_strong(expected, CommitWord{generation, false, step + 1}.pack());
}

// Closes a word that belongs to `generation`; leaves one of another generation alone.
inline void close_commit(std::atomic<uint64_t>& word, uint64_t generation) {
  uint64_t seen = word.load(std::memory_order_seq_cst);
  while (seen >> 41 == generation && (seen & CommitWord::kClosedBit) == 0) {
    if (word.compare_exchange_weak(seen, seen | CommitWord::kClosedBit)) return;
  }
}

}  // namespace hpcore::roster
