// The reductions for x86 CPUs with AVX-512 as of Ice Lake and Zen 4 (older ones slow their clock
// down for it): the same loops, wider. The compiler must not fuse multiply-adds: that would change
// bits.
#include <cstdint>
#include <type_traits>

#include "collective/kernels.hpp"

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define HPCORE_F16_LANES 16
#define HPCORE_NO_COMPLEX
#if defined(__clang__)
#pragma clang attribute push(                                                              \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512"))), \
    apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512")
#endif

namespace hpcore::collective::avx2 {
ReduceKernel find(DType dtype, ReduceOp op);  // kernels_avx2.cpp
}

namespace hpcore::collective::avx512 {
namespace {
namespace loops {
#include "collective/kernels_impl.hpp"
}
}  // namespace

ReduceKernel find(DType dtype, ReduceOp op);
ReduceKernel find(DType dtype, ReduceOp op) {
  const bool complex = dtype == DType::kComplex64 || dtype == DType::kComplex128;
  return complex ? avx2::find(dtype, op) : loops::find(dtype, op);
}

}  // namespace hpcore::collective::avx512

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
