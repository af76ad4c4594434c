// Purpose: the order of a mixture: position -> (member, its sample), from weights that may change
// at given positions (a curriculum). Each member goes through its own permutations, epoch after
// epoch, at the pace of its weight, and goes on where it was when the weights change. A pure
// function of (counts, phases, seed, position): nothing to save.
// Cost: `at` is one search among the phases, one look-up, one permutation.
// Threads: immutable, thread-safe.
// Ownership: a value.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/status.hpp"
#include "dataset/interleave.hpp"

namespace hpcore::dataset {

struct MixtureDraw {
  uint32_t member;
  uint64_t nth;     // how many samples of this member came before
  uint64_t epoch;   // of the member
  uint64_t sample;  // of the member
};

class MixtureOrder {
 public:
  struct Phase {
    uint64_t first;  // position
    std::vector<uint32_t> weights;
  };

  // `counts`: samples of each member. kInvalid unless phases begin at 0, rise, and have a weight
  // for each member, and no member with a weight is empty.
  static Result<MixtureOrder> make(std::vector<uint64_t> counts, std::span<const Phase> phases,
                                   uint64_t seed, bool shuffle);

  [[nodiscard]] MixtureDraw at(uint64_t position) const;
  // Samples of `member` among the first `positions`.
  [[nodiscard]] uint64_t count(uint32_t member, uint64_t positions) const;
  [[nodiscard]] size_t members() const { return counts_.size(); }

 private:
  struct Stretch {
    uint64_t first;
    Interleave turns;
    std::vector<uint64_t> before;  // of each member, until the stretch begins
  };
  MixtureOrder() = default;
  [[nodiscard]] const Stretch& stretch_of(uint64_t position) const;

  std::vector<uint64_t> counts_;
  std::vector<uint64_t> seeds_;
  std::vector<Stretch> stretches_;
  bool shuffle_ = true;
};

}  // namespace hpcore::dataset
