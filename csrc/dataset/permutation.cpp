#include "dataset/permutation.hpp"

#include <algorithm>
#include <bit>

namespace hpcore::dataset {
namespace {

// splitmix64's finaliser: Steele, Lea, Flood, "Fast splittable pseudorandom number generators"
// (2014).
uint64_t mix(uint64_t value) {
  value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9;
  value = (value ^ (value >> 27)) * 0x94D049BB133111EB;
  return value ^ (value >> 31);
}

constexpr uint64_t kGolden = 0x9E3779B97F4A7C15;

uint64_t ones(unsigned bits) { return (uint64_t{1} << bits) - 1; }

}  // namespace

uint64_t member_seed(uint64_t seed, uint64_t member) {
  return mix(mix(seed + 3 * kGolden) + (member + 1) * kGolden);
}

Result<Permutation> Permutation::make(uint64_t count, uint64_t seed, uint64_t epoch) {
  if (count == 0 || count > kMaxCount) {
    return Status(Code::kInvalid,
                  "a permutation needs 1 to 2^62 samples, not " + std::to_string(count));
  }
  Permutation result;
  result.count_ = count;
  const unsigned bits = std::max(6u, static_cast<unsigned>(std::bit_width(count - 1)));
  result.low_bits_ = bits / 2;
  result.high_bits_ = bits - bits / 2;
  uint64_t state = mix(seed + kGolden) ^ mix(mix(epoch + 2 * kGolden));
  for (uint64_t& key : result.keys_) key = mix(state += kGolden);
  return result;
}

uint64_t Permutation::network(uint64_t value) const {
  uint64_t low = value & ones(low_bits_);
  uint64_t high = value >> low_bits_;
  for (int round = 0; round < kRounds; round += 2) {
    low ^= mix(high + keys_[round]) & ones(low_bits_);
    high ^= mix(low + keys_[round + 1]) & ones(high_bits_);
  }
  return high << low_bits_ | low;
}

uint64_t Permutation::at(uint64_t position) const {
  uint64_t value = network(position);
  while (value >= count_) value = network(value);
  return value;
}

}  // namespace hpcore::dataset
