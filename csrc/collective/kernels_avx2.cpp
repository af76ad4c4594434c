// The reductions for x86 CPUs with AVX2 and F16C: the same loops, wider. No FMA: it would change
// bits.
#include <cstdint>
#include <type_traits>

#include "collective/kernels.hpp"

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define HPCORE_F16_LANES 8
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,f16c"))), apply_to = function)
#else
#pragma GCC target("avx2,f16c")
#endif

namespace hpcore::collective::avx2 {
namespace {
namespace loops {
#include "collective/kernels_impl.hpp"
}
}  // namespace

ReduceKernel find(DType dtype, ReduceOp op);
ReduceKernel find(DType dtype, ReduceOp op) { return loops::find(dtype, op); }

}  // namespace hpcore::collective::avx2

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
