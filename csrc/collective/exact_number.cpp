#include "collective/exact_number.hpp"

#include <bit>
#include <cmath>
#include <limits>

namespace hpcore::collective {
namespace {

constexpr uint64_t kMantissa = (uint64_t{1} << 52) - 1;
constexpr int64_t kLowHalf = 0xFFFFFFFF;
constexpr int kCountBits = 21;  // of each of the three counts in the last word
constexpr int64_t kCountMask = (int64_t{1} << kCountBits) - 1;

}  // namespace

void ExactNumber::add(double value) {
  const auto bits = std::bit_cast<uint64_t>(value);
  const auto exponent = static_cast<int>(bits >> 52 & 0x7FF);
  if (exponent == 0x7FF) {
    nans_ += std::isnan(value);
    infinities_ += value == std::numeric_limits<double>::infinity();
    negative_infinities_ += value == -std::numeric_limits<double>::infinity();
    return;
  }
  const uint64_t mantissa = (bits & kMantissa) | (exponent != 0 ? kMantissa + 1 : 0);
  const int offset = exponent != 0 ? exponent - 1 : 0;
  const auto shifted = static_cast<unsigned __int128>(mantissa) << (offset % 32);
  const int64_t parts[3] = {static_cast<int64_t>(shifted) & kLowHalf,
                            static_cast<int64_t>(shifted >> 32) & kLowHalf,
                            static_cast<int64_t>(shifted >> 64)};
  const bool negative = bits >> 63 != 0;
  int64_t* limb = limbs_.data() + offset / 32;
  for (int i = 0; i < 3; ++i) limb[i] += negative ? -parts[i] : parts[i];
}

void ExactNumber::normalise() {
  for (int i = 0; i + 1 < kLimbs; ++i) {
    limbs_[i + 1] += limbs_[i] >> 32;
    limbs_[i] &= kLowHalf;
  }
}

double ExactNumber::round() {
  if (nans_ != 0 || (infinities_ != 0 && negative_infinities_ != 0)) {
    return std::numeric_limits<double>::quiet_NaN();
  }
  if (infinities_ != 0) return std::numeric_limits<double>::infinity();
  if (negative_infinities_ != 0) return -std::numeric_limits<double>::infinity();
  normalise();
  std::array<int64_t, kLimbs> size = limbs_;
  const bool negative = limbs_[kLimbs - 1] < 0;
  if (negative) {
    int64_t carry = 0;
    for (int i = 0; i < kLimbs; ++i) {
      carry -= limbs_[i];
      size[i] = i + 1 < kLimbs ? carry & kLowHalf : carry;
      carry >>= 32;
    }
  }
  int top = kLimbs - 1;
  while (top > 0 && size[top] == 0) --top;
  // The upper 65 to 96 bits in one word, and whether anything is below them.
  const int low = top > 1 ? top - 2 : 0;
  unsigned __int128 window = 0;
  for (int i = top; i >= low; --i) window = window << 32 | static_cast<uint64_t>(size[i]);
  bool sticky = false;
  for (int i = 0; i < low; ++i) sticky |= size[i] != 0;
  const auto upper = static_cast<uint64_t>(window >> 64);
  const int length = upper != 0 ? 64 + std::bit_width(upper)
                                : static_cast<int>(std::bit_width(static_cast<uint64_t>(window)));
  int drop = length > 53 ? length - 53 : 0;
  auto mantissa = static_cast<uint64_t>(window >> drop);
  if (drop > 0) {
    const unsigned __int128 rest = window & ((static_cast<unsigned __int128>(1) << drop) - 1);
    const unsigned __int128 half = static_cast<unsigned __int128>(1) << (drop - 1);
    mantissa += rest > half || (rest == half && (sticky || (mantissa & 1) != 0));
  }
  // Never rounds again: the mantissa has 53 bits, and fewer only where bit 0 is its lowest.
  const double result = std::ldexp(static_cast<double>(mantissa), drop + 32 * low - 1074);
  return negative ? -result : result;
}

void ExactNumber::put_narrow(std::span<int64_t, kNarrowWords> words) {
  normalise();
  // A negative sum borrows from all limbs above: fold them back into the last word that is sent.
  int64_t high = limbs_[kLimbs - 1];
  for (int i = kLimbs - 2; i >= kFirstNarrow + kNarrowLimbs - 1; --i) {
    high = (high << 32) + limbs_[i];
  }
  for (int i = 0; i + 1 < kNarrowLimbs; ++i) words[i] = limbs_[kFirstNarrow + i];
  words[kNarrowLimbs - 1] = high;
  words[kNarrowLimbs] = (nans_ != 0) | static_cast<int64_t>(infinities_ != 0) << kCountBits |
                        static_cast<int64_t>(negative_infinities_ != 0) << (2 * kCountBits);
}

void ExactNumber::add_narrow(std::span<const int64_t, kNarrowWords> words) {
  for (int i = 0; i < kNarrowLimbs; ++i) limbs_[kFirstNarrow + i] += words[i];
  const int64_t counts = words[kNarrowLimbs];
  nans_ += counts & kCountMask;
  infinities_ += counts >> kCountBits & kCountMask;
  negative_infinities_ += counts >> (2 * kCountBits) & kCountMask;
}

}  // namespace hpcore::collective
