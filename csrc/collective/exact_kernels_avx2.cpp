// The loops of exact sums for x86 CPUs with AVX2: the same source, wider.
#include "collective/control_block.hpp"
#include "collective/exact_kernels.hpp"
#include "collective/exact_number.hpp"

#if defined(__x86_64__) && defined(__GNUC__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC target("avx2")
#endif

namespace hpcore::collective::avx2 {
namespace {
namespace loops {
#include "collective/exact_kernels_impl.hpp"
}
}  // namespace

ExactLoops find_exact_loops(DType dtype);
ExactLoops find_exact_loops(DType dtype) { return loops::find_loops(dtype); }
ReduceKernel find_exact_kernel(DType dtype);
ReduceKernel find_exact_kernel(DType dtype) { return loops::find_kernel_of(dtype); }

}  // namespace hpcore::collective::avx2

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
