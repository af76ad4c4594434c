// Purpose: what the operations with one buffer a rank share: how buffers are cut into steps, lanes
// within a staging buffer, and the comparison of sizes that ranks cannot know of each other.
// Threads: one thread. Ownership: none. Private to collective/.
#pragma once

#include "collective/operation.hpp"

namespace hpcore::collective {

// Which bytes of a buffer of `bytes` are in step `step`, if a step takes `per_step` of them.
struct Part {
  size_t from;
  size_t bytes;
};
inline Part part_of(uint64_t step, size_t per_step, size_t bytes) {
  const size_t from = std::min(bytes, step * per_step);
  return {from, std::min(per_step, bytes - from)};
}
inline uint64_t steps_for(size_t bytes, size_t per_step) {
  return (bytes + per_step - 1) / per_step;
}

inline std::byte* bytes_of(const Buffer& buffer) { return static_cast<std::byte*>(buffer.data); }

inline void copy_part(std::byte* to, const std::byte* from, size_t bytes) {
  if (bytes != 0) std::memcpy(to, from, bytes);
}

inline size_t largest(Buffers buffers) {
  size_t most = 0;
  for (const Buffer& buffer : buffers) most = std::max(most, buffer.elements);
  return most;
}

// A staging buffer with one lane of the same length for each receiver.
struct Lanes {
  const Operation& op;
  size_t element_bytes;
  size_t length = op.buffer_bytes() / static_cast<size_t>(op.size()) / 64 * 64;

  [[nodiscard]] Part part(uint64_t step, const Buffer& buffer) const {
    return part_of(step, length, buffer.elements * element_bytes);
  }
  [[nodiscard]] uint64_t steps(size_t elements) const {
    return steps_for(elements * element_bytes, length);
  }
  // This rank's part of each other rank's buffer.
  void fill(Buffers inputs, uint64_t step, std::byte* to) const {
    for (size_t other = 0; other < inputs.size(); ++other) {
      if (other == static_cast<size_t>(op.rank())) continue;
      const Part p = part(step, inputs[other]);
      copy_part(to + other * length, bytes_of(inputs[other]) + p.from, p.bytes);
    }
  }
  // This rank's lane in the staging of `writer`.
  [[nodiscard]] const std::byte* from(int writer, uint64_t step) const {
    return op.buffer(writer, step) + static_cast<size_t>(op.rank()) * length;
  }
  void drain(int writer, uint64_t step, const Buffer& output) const {
    const Part p = part(step, output);
    copy_part(bytes_of(output) + p.from, from(writer, step), p.bytes);
  }
};

Status check_one_each(const char* what, const char* which, Buffers buffers, int ranks);
Status check_same_size(const char* what, const Buffer& one, const Buffer& other, int rank);
// After meet(): root's table, sizes[1 + rank], against each rank's own size, sizes[0].
Status check_root_sizes(Operation& op, int root, bool root_sends, size_t* most);
// After meet(): what each rank sends to each other, sizes[to], against what that one expects,
// sizes[ranks + from].
Status check_pair_sizes(Operation& op, size_t* most);

}  // namespace hpcore::collective
