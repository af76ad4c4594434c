// Purpose: who comes next when several parties share positions by weight. A periodic schedule of
// as many places as the weights add up to, in which party i holds weight[i] places, spread so that
// among the first k positions, for every k, its count differs from k * weight[i] / total by at
// most 1 - 1 / (2 parties - 2): no schedule can promise less. So any window, wherever it begins,
// is off by less than two.
// How: R. Tijdeman, "The chairman assignment problem", Discrete Mathematics 32 (1980) 323-330: of
// the parties that are due, the one whose latest time comes first.
// Cost: 10 bytes a place, at most 2^16 places; `at` is a look-up, `count` a binary search.
// Threads: immutable, thread-safe.
// Ownership: a value.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/status.hpp"

namespace hpcore::dataset {

class Interleave {
 public:
  static constexpr uint64_t kMaxTotal = 1 << 16;
  static constexpr size_t kMaxParties = 1 << 12;

  struct Turn {
    uint32_t party;
    uint64_t nth;  // how many turns this party had before
  };

  // Parties of weight 0 never have a turn. kInvalid unless the sum is 1 to 2^16.
  static Result<Interleave> make(std::span<const uint32_t> weights);

  [[nodiscard]] Turn at(uint64_t position) const;
  // Turns of `party` among the first `positions`.
  [[nodiscard]] uint64_t count(uint32_t party, uint64_t positions) const;
  [[nodiscard]] uint64_t total() const { return party_.size(); }
  [[nodiscard]] size_t parties() const { return weights_.size(); }
  [[nodiscard]] std::span<const uint32_t> weights() const { return weights_; }

 private:
  Interleave() = default;
  void deal();

  std::vector<uint32_t> weights_;
  std::vector<uint16_t> party_;   // of each place
  std::vector<uint32_t> nth_;     // of each place: earlier places of the same party
  std::vector<uint32_t> places_;  // party after party, each in order
  std::vector<uint32_t> first_;   // where a party's places begin
};

}  // namespace hpcore::dataset
