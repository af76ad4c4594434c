// Purpose: element-wise reduction of one array per rank, in rank order: ((x0 op x1) op x2) ...
// float16, bfloat16 and float8 are accumulated in float32 and rounded once, at the end (as torch
// rounds). No fused multiply-adds: the result has the same bits on every machine. min and max keep
// the first NaN. bool: sum = or, product = min = and, max = or. Signed integers wrap.
// Threads: pure functions. Ownership: none.
#pragma once

#include <span>

#include "base/status.hpp"
#include "collective/control_block.hpp"
#include "collective/dtype.hpp"

namespace hpcore::collective {

struct KernelArguments {
  double factor = 1.0;  // kPremulSum
  int ranks = 1;        // kAvg: the divisor
};

// `target` may be one of `sources` exactly; other overlaps are not allowed.
using ReduceKernel = void (*)(void* target, const void* const* sources, int source_count,
                              size_t elements, const KernelArguments& arguments);

// Written once, compiled for several instruction sets: all give the same bits.
enum class Instructions { kPortable, kAvx2, kAvx512 };
// What this CPU has, fastest first; kPortable, the architecture's baseline, is always there.
[[nodiscard]] std::span<const Instructions> usable_instructions();
[[nodiscard]] const char* name_of(Instructions instructions);  // "avx512", ...

// nullptr: this reduction has no meaning for this type. `instructions` must be usable.
[[nodiscard]] ReduceKernel find_kernel(DType dtype, ReduceOp op, Instructions instructions);
[[nodiscard]] ReduceKernel find_kernel(DType dtype, ReduceOp op);  // the fastest
[[nodiscard]] inline Status no_such_reduction(DType dtype, ReduceOp op) {
  return {Code::kUnsupported,
          std::string(name_of(op)) + " has no meaning for " + name_of(dtype) + " elements"};
}

}  // namespace hpcore::collective
