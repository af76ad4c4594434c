#include "dataset/interleave.hpp"

#include <algorithm>
#include <string>

namespace hpcore::dataset {

Result<Interleave> Interleave::make(std::span<const uint32_t> weights) {
  uint64_t total = 0;
  for (const uint32_t weight : weights) total += weight;
  if (weights.empty() || weights.size() > kMaxParties || total == 0 || total > kMaxTotal) {
    return Status(Code::kInvalid,
                  "an interleave needs 1 to 4096 weights with a sum of 1 to 65536; "
                  "got " +
                      std::to_string(weights.size()) + " with a sum of " + std::to_string(total));
  }
  Interleave result;
  result.weights_.assign(weights.begin(), weights.end());
  result.party_.resize(total);
  result.nth_.resize(total);
  result.deal();
  uint32_t first = 0;
  for (const uint32_t weight : weights) {
    result.first_.push_back(first);
    first += weight;
  }
  result.places_.resize(total);
  for (uint32_t place = 0; place < total; ++place) {
    result.places_[result.first_[result.party_[place]] + result.nth_[place]] = place;
  }
  return result;
}

// In integers: everything is multiplied by total * margin, where 1 / margin is Tijdeman's delta.
void Interleave::deal() {
  const auto total = static_cast<int64_t>(party_.size());
  std::vector<uint32_t> active;
  for (uint32_t i = 0; i < weights_.size(); ++i) {
    if (weights_[i] > 0) active.push_back(i);
  }
  const auto margin = active.size() > 1 ? static_cast<int64_t>(2 * active.size() - 2) : 1;
  std::vector<int64_t> had(weights_.size(), 0);
  for (int64_t turn = 1; turn <= total; ++turn) {
    int64_t best_slack = 0;
    int64_t best_weight = 0;
    uint32_t best = active[0];
    for (const uint32_t i : active) {
      const int64_t weight = weights_[i];
      const int64_t owed = (weight * turn - had[i] * total) * margin;
      if (owed < total && active.size() > 1) continue;  // not due yet
      const int64_t slack = total * margin - total - owed;
      if (best_weight == 0 || slack * best_weight < best_slack * weight) {
        best = i;
        best_slack = slack;
        best_weight = weight;
      }
    }
    party_[turn - 1] = static_cast<uint16_t>(best);
    nth_[turn - 1] = static_cast<uint32_t>(had[best]++);
  }
}

Interleave::Turn Interleave::at(uint64_t position) const {
  const uint64_t round = position / total();
  const uint64_t place = position % total();
  const uint32_t party = party_[place];
  return {party, round * weights_[party] + nth_[place]};
}

uint64_t Interleave::count(uint32_t party, uint64_t positions) const {
  const uint64_t round = positions / total();
  const auto begin = places_.begin() + first_[party];
  const auto found =
      std::lower_bound(begin, begin + weights_[party], static_cast<uint32_t>(positions % total()));
  return round * weights_[party] + static_cast<uint64_t>(found - begin);
}

}  // namespace hpcore::dataset
