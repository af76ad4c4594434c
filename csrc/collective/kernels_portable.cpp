// The reductions for any CPU, and the choice between them and those for what this CPU has.
#include <cstdint>
#include <type_traits>
#include <vector>

#include "collective/exact_kernels.hpp"
#include "collective/kernels.hpp"

namespace hpcore::collective {

#if defined(__x86_64__) && defined(__GNUC__)
#define HPCORE_X86 1
namespace avx2 {
ReduceKernel find(DType dtype, ReduceOp op);  // kernels_avx2.cpp
}
namespace avx512 {
ReduceKernel find(DType dtype, ReduceOp op);  // kernels_avx512.cpp
}
#endif

namespace portable {
namespace {
#include "collective/kernels_impl.hpp"
}
}  // namespace portable

namespace {

std::vector<Instructions> find_instructions() {
  std::vector<Instructions> found;
#ifdef HPCORE_X86
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c");
  // vbmi2 came with Ice Lake and Zen 4: the ones before it slow their clock down for wide vectors.
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512vbmi2");
  if (avx2 && avx512) found.push_back(Instructions::kAvx512);
  if (avx2) found.push_back(Instructions::kAvx2);
#endif
  found.push_back(Instructions::kPortable);
  return found;
}

}  // namespace

std::span<const Instructions> usable_instructions() {
  static const std::vector<Instructions> found = find_instructions();
  return found;
}

const char* name_of(Instructions instructions) {
  constexpr const char* kNames[] = {"portable", "avx2", "avx512"};
  return kNames[static_cast<int>(instructions)];
}

ReduceKernel find_kernel(DType dtype, ReduceOp op, Instructions instructions) {
  if (op == ReduceOp::kExactSum) return find_exact_kernel(dtype, instructions);
#ifdef HPCORE_X86
  if (instructions == Instructions::kAvx512) return avx512::find(dtype, op);
  if (instructions == Instructions::kAvx2) return avx2::find(dtype, op);
#endif
  return portable::find(dtype, op);
}

ReduceKernel find_kernel(DType dtype, ReduceOp op) {
  return find_kernel(dtype, op, usable_instructions().front());
}

}  // namespace hpcore::collective
