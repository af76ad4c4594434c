// Purpose: element-wise reduction of one array per rank, in rank order: ((x0 op x1) op x2) ...
// float16, bfloat16 and float8 are accumulated in float32 and rounded once, at the end (as torch
// rounds). No fused multiply-adds: the result has the same bits on every machine. min and max keep
// the first NaN. bool: sum = or, product = min = and, max = or. Signed integers wrap.
// Threads: pure functions. Ownership: none.
#pragma once

#include "base/status.hpp"
#include "collective/dtype.hpp"

namespace hpcore::collective {

struct KernelArguments {
  double factor = 1.0;  // kPremulSum
  int ranks = 1;        // kAvg: the divisor
};

// `target` may be one of `sources` exactly; other overlaps are not allowed.
using ReduceKernel = void (*)(void* target, const void* const* sources, int source_count,
                              size_t elements, const KernelArguments& arguments);

// nullptr: this reduction has no meaning for this type.
[[nodiscard]] ReduceKernel find_kernel(DType dtype, ReduceOp op);
// Without what this CPU can do beyond the architecture's baseline: the same bits, more slowly.
[[nodiscard]] ReduceKernel find_portable_kernel(DType dtype, ReduceOp op);
[[nodiscard]] inline Status no_such_reduction(DType dtype, ReduceOp op) {
  return {Code::kUnsupported,
          std::string(name_of(op)) + " has no meaning for " + name_of(dtype) + " elements"};
}

}  // namespace hpcore::collective
