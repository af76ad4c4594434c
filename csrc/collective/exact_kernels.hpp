// Purpose: the loops of exact sums. A sum is kept in float64 for as long as each addition is exact,
// which an error-free transformation tells (TwoSum: D. E. Knuth, TAOCP 2, 4.2.2): an exact sum does
// not depend on the order of its terms. What does not fit goes to `rest`, in full.
// The same source for each instruction set, without fused multiply-adds: the same bits.
// Threads: pure functions. Ownership: none.
#pragma once

#include <cstddef>
#include <cstdint>

#include "collective/kernels.hpp"

namespace hpcore::collective {

// Elements that one call of these loops takes at most: `rest` stays in the first-level cache.
constexpr size_t kExactBlock = 512;

struct ExactLoops {
  // sums[i] += x[i]; rest[i]: what that addition lost. Returns 0 if it lost nothing anywhere (for
  // infinities and NaNs it is not 0).
  using Fold = uint64_t (*)(double* sums, const void* x, double* rest, size_t elements);
  // sums[i] = x[i]
  using Begin = void (*)(double* sums, const void* x, size_t elements);
  // to[i] = sums[i] rounded to nearest, to float32 first if it is narrower; one NaN.
  using Narrow = void (*)(void* to, const double* sums, size_t elements);
  Fold fold = nullptr;
  Begin begin = nullptr;
  Narrow narrow = nullptr;
};

// For float32, bfloat16, float16; all members nullptr for other types.
[[nodiscard]] ExactLoops find_exact_loops(DType dtype, Instructions instructions);
// The reduction of kExactSum, also for float64: the sum of one value a rank without any rounding
// on the way, rounded once to float64, and then to the type; independent of the order of ranks.
// nullptr: not for this type.
[[nodiscard]] ReduceKernel find_exact_kernel(DType dtype, Instructions instructions);

}  // namespace hpcore::collective
