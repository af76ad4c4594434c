// Purpose: one sum of float64 numbers without any rounding: a fixed-point number wide enough for
// all of them, in limbs of 32 bits. Sums of limbs are sums of numbers, so partial sums can be added
// in any order and grouping, by any integer reduction. Source: R. M. Neal, Fast exact summation
// using small and large superaccumulators, 2015 (the small one).
// Threads: plain value, one thread. Ownership: none.
// Lifecycle: at most 2^31 numbers may be added before normalise(), which round() calls.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace hpcore::collective {

class ExactNumber {
 public:
  // 2^-1074 is bit 0; 2^1024 times 2^63 numbers still fit.
  static constexpr int kLimbs = 68;
  // The part that sums of float32, bfloat16 and float16 numbers can touch: 2^-178 to 2^174.
  static constexpr int kFirstNarrow = 28;
  static constexpr int kNarrowLimbs = 11;
  // What put_narrow writes: the limbs, and how many infinities and NaNs there were.
  static constexpr int kNarrowWords = kNarrowLimbs + 1;

  void add(double value);
  void clear() { *this = {}; }
  // The sum, rounded to nearest, ties to even. NaN if there was a NaN, or infinities of both signs;
  // else infinity if there was one, or if the sum is out of range. A sum of zero is +0.
  [[nodiscard]] double round();
  // Carries: afterwards all limbs but the last are from 0 to 2^32 - 1.
  void normalise();

  // As words whose sums over ranks are the words of the sum. All numbers added must have been sums
  // of float32 numbers; words of up to 2^20 ranks may be added.
  void put_narrow(std::span<int64_t, kNarrowWords> words);
  void add_narrow(std::span<const int64_t, kNarrowWords> words);

 private:
  std::array<int64_t, kLimbs> limbs_{};
  int64_t nans_ = 0, infinities_ = 0, negative_infinities_ = 0;
};

}  // namespace hpcore::collective
