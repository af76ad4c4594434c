// The loops of exact sums for any CPU, and the choice between them and the wider ones.
#include "collective/exact_kernels.hpp"

#include "collective/control_block.hpp"
#include "collective/exact_number.hpp"

namespace hpcore::collective {

#if defined(__x86_64__) && defined(__GNUC__)
namespace avx2 {
ExactLoops find_exact_loops(DType dtype);
ReduceKernel find_exact_kernel(DType dtype);
}  // namespace avx2
namespace avx512 {
ExactLoops find_exact_loops(DType dtype);
ReduceKernel find_exact_kernel(DType dtype);
}  // namespace avx512
#endif

namespace portable {
namespace {
#include "collective/exact_kernels_impl.hpp"
}
}  // namespace portable

ExactLoops find_exact_loops(DType dtype, Instructions instructions) {
#if defined(__x86_64__) && defined(__GNUC__)
  if (instructions == Instructions::kAvx512) return avx512::find_exact_loops(dtype);
  if (instructions == Instructions::kAvx2) return avx2::find_exact_loops(dtype);
#endif
  return portable::find_loops(dtype);
}

ReduceKernel find_exact_kernel(DType dtype, Instructions instructions) {
#if defined(__x86_64__) && defined(__GNUC__)
  if (instructions == Instructions::kAvx512) return avx512::find_exact_kernel(dtype);
  if (instructions == Instructions::kAvx2) return avx2::find_exact_kernel(dtype);
#endif
  return portable::find_kernel_of(dtype);
}

}  // namespace hpcore::collective
