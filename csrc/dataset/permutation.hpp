// Purpose: the order of samples: a keyed permutation of 0 .. n-1 that is computed, not stored.
// Position k of epoch e under a seed is a pure function of (n, seed, e, k): nothing is to be saved,
// restored or agreed.
// How: an alternating Feistel network of 8 rounds over the smallest power of two that holds n (at
// least 2^6), walked along its cycle until the value is below n (fewer than two walks on average
// for n > 32). Statistical quality, no secrecy.
// Threads: immutable, thread-safe.
// Ownership: a value.
#pragma once

#include <array>
#include <cstdint>

#include "base/status.hpp"

namespace hpcore::dataset {

// The version of everything here and in mixture.hpp: positions of equal (counts, weights, seed)
// mean equal samples as long as it is the same.
constexpr uint32_t kOrderVersion = 1;

// The seed under which member `member` of a mixture is permuted.
uint64_t member_seed(uint64_t seed, uint64_t member);

class Permutation {
 public:
  static constexpr uint64_t kMaxCount = uint64_t{1} << 62;

  // kInvalid unless 1 <= count <= 2^62.
  static Result<Permutation> make(uint64_t count, uint64_t seed, uint64_t epoch);
  [[nodiscard]] uint64_t count() const { return count_; }
  // position < count()
  [[nodiscard]] uint64_t at(uint64_t position) const;

 private:
  static constexpr int kRounds = 8;
  Permutation() = default;
  [[nodiscard]] uint64_t network(uint64_t value) const;

  uint64_t count_ = 1;
  unsigned low_bits_ = 3;
  unsigned high_bits_ = 3;
  std::array<uint64_t, kRounds> keys_{};
};

}  // namespace hpcore::dataset
