// Purpose: what one member of a channel publishes in shared memory. Only its owner writes a
// member's control block, staging and rings; the others read them and ring its doorbell. So
// whatever a dying or late process still writes lies in its own slot, where no newer generation
// looks before a newer process has the slot. Threads: words are atomics; the rest is published by a
// later release store to `filled`. Ownership: plain shared memory; zero means "nothing of any
// generation yet". Lifecycle: never cleared. Each word carries its generation in the upper bits, so
// that leftovers of an older generation are smaller than anything a newer one waits for.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace hpcore::collective {

constexpr int kMaxMembers = 256;  // of one node
constexpr int kCountBits = 41;    // 127 days of one step per 5 us
constexpr uint64_t kMaxGeneration = (uint64_t{1} << (64 - kCountBits)) - 1;
constexpr uint64_t kMaxCount = (uint64_t{1} << kCountBits) - 1;
constexpr uint64_t kBuffers = 4;  // staging buffers of a member: step i uses buffer i % 4

constexpr uint64_t stamp(uint64_t generation, uint64_t count) {
  return generation << kCountBits | count;
}
constexpr uint64_t generation_of(uint64_t stamped) { return stamped >> kCountBits; }
constexpr uint64_t count_of(uint64_t stamped) { return stamped & kMaxCount; }

// What a member is about to do; two of them, so that a fast member's next operation leaves the
// header of this one readable. Every operation begins with a step that all wait for, so nobody is
// ever two operations ahead.
struct alignas(64) OpHeader {
  uint64_t sequence;  // 1, 2, ... within a generation
  uint32_t kind;      // OpKind
  uint32_t dtype;
  uint32_t reduce_op;
  int32_t root;
  uint64_t elements;
  uint64_t factor_bits;
  uint64_t split_hash;  // of the sizes per rank, where all must agree on them
};
static_assert(sizeof(OpHeader) == 64);

using StampWord = std::atomic<uint64_t>;

struct alignas(64) PaddedWord {
  StampWord word;
};

struct ControlBlock {
  // One cache line: what the others look at in each step.
  alignas(64) StampWord filled;        // my staging holds step n
  StampWord reduced;                   // my segment of step n is reduced
  StampWord drained;                   // I have read all I need of step n
  StampWord joined;                    // I have this memory: what is left for me will be found
  StampWord begun;                     // the operation I am in or was in last
  std::atomic<uint64_t> signature[2];  // of headers[sequence & 1]
  std::atomic<uint32_t> core;          // where I was last, plus 1: current_core()
  // Written and read by the owner's process only: generation:23 | pid:22 | operations inside:19.
  alignas(64) std::atomic<uint64_t> occupancy;
  OpHeader headers[2];
  uint64_t sizes[2][2 * kMaxMembers];  // of headers[sequence & 1], where sizes differ by rank
  PaddedWord sent[kMaxMembers];        // bytes put into my ring to member i
  PaddedWord received[kMaxMembers];    // bytes taken from member i's ring to me
};

}  // namespace hpcore::collective
