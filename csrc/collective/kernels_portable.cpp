// The reductions for any CPU, and the choice between them and the AVX2 ones.
#include <cstdint>

#include "collective/kernels.hpp"

namespace hpcore::collective {

#if defined(__x86_64__) && defined(__GNUC__)
namespace avx2 {
ReduceKernel find(DType dtype, ReduceOp op);  // kernels_avx2.cpp
}
#endif

namespace portable {
namespace {
#include "collective/kernels_impl.hpp"
}
}  // namespace portable

ReduceKernel find_portable_kernel(DType dtype, ReduceOp op) { return portable::find(dtype, op); }

ReduceKernel find_kernel(DType dtype, ReduceOp op) {
#if defined(__x86_64__) && defined(__GNUC__)
  static const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c");
  if (has_avx2) return avx2::find(dtype, op);
#endif
  return portable::find(dtype, op);
}

}  // namespace hpcore::collective
