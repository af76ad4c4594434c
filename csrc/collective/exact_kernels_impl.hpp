// Purpose: the loops of exact_kernels.hpp. Included once for each instruction set, inside a
// namespace, by exact_kernels.cpp, exact_kernels_avx2.cpp and exact_kernels_avx512.cpp.
// Threads: pure functions.

#include "collective/minifloat.hpp"

struct Single {
  using Stored = float;
  static double load(Stored x) { return static_cast<double>(x); }
  static Stored store(double x) { return static_cast<float>(x); }
};
struct Double {
  using Stored = double;
  static double load(Stored x) { return x; }
  static Stored store(double x) { return x; }
};
template <typename Format>
struct Small {
  using Stored = uint16_t;
  static double load(Stored x) { return static_cast<double>(Format::decode(x)); }
  static Stored store(double x) {
    return static_cast<uint16_t>(Format::encode(static_cast<float>(x)));
  }
};

struct Exactly {
  double sum, rest;
};
inline Exactly two_sum(double a, double b) {
  const double sum = a + b;
  const double part = sum - a;
  return {sum, (a - (sum - part)) + (b - part)};
}
inline double one_nan(double x) { return x != x ? __builtin_nan("") : x; }

// Not inlined: vectorised on their own.
#define HPCORE_LOOP __attribute__((noinline))

template <typename E>
HPCORE_LOOP uint64_t fold(double* __restrict sums, const void* __restrict x,
                          double* __restrict rest, size_t elements) {
  const auto* from = static_cast<const typename E::Stored*>(x);
  uint64_t lost = 0;
  for (size_t i = 0; i < elements; ++i) {
    const Exactly both = two_sum(sums[i], E::load(from[i]));
    sums[i] = both.sum;
    rest[i] = both.rest;
    lost |= __builtin_bit_cast(uint64_t, both.rest);
  }
  return lost;
}

// + 0.0: a sum is never -0, whatever was added to it.
template <typename E>
HPCORE_LOOP void begin(double* __restrict sums, const void* __restrict x, size_t elements) {
  const auto* from = static_cast<const typename E::Stored*>(x);
  for (size_t i = 0; i < elements; ++i) sums[i] = E::load(from[i]) + 0.0;
}

template <typename E>
HPCORE_LOOP void narrow(void* __restrict to, const double* __restrict sums, size_t elements) {
  auto* into = static_cast<typename E::Stored*>(to);
  for (size_t i = 0; i < elements; ++i) into[i] = E::store(one_nan(sums[i]));
}

// What the additions of a block lost, for each element: 0, or not.
template <typename E>
HPCORE_LOOP void find_lost(double* __restrict sums, uint64_t* __restrict lost,
                           const void* __restrict x, size_t elements) {
  const auto* from = static_cast<const typename E::Stored*>(x);
  for (size_t i = 0; i < elements; ++i) {
    const Exactly both = two_sum(sums[i], E::load(from[i]));
    sums[i] = both.sum;
    lost[i] |= __builtin_bit_cast(uint64_t, both.rest);
  }
}

template <typename E>
HPCORE_LOOP void sum_slowly(double* sums, const typename E::Stored* const* from, int count,
                            size_t elements) {
  double again[kExactBlock];
  uint64_t lost[kExactBlock] = {};
  begin<E>(again, from[0], elements);
  for (int k = 1; k < count; ++k) find_lost<E>(again, lost, from[k], elements);
  for (size_t i = 0; i < elements; ++i) {
    if (lost[i] == 0) continue;
    ExactNumber exact;
    for (int k = 0; k < count; ++k) exact.add(E::load(from[k][i]));
    sums[i] = exact.round();
  }
}

template <typename E>
void exact_kernel(void* target, const void* const* sources, int count, size_t elements,
                  const KernelArguments&) {
  using S = typename E::Stored;
  double sums[kExactBlock], rest[kExactBlock];
  const S* from[kMaxMembers];
  for (size_t at = 0; at < elements; at += kExactBlock) {
    const size_t n = elements - at < kExactBlock ? elements - at : kExactBlock;
    for (int k = 0; k < count; ++k) from[k] = static_cast<const S*>(sources[k]) + at;
    begin<E>(sums, from[0], n);
    uint64_t lost = 0;
    for (int k = 1; k < count; ++k) lost |= fold<E>(sums, from[k], rest, n);
    if (lost != 0) sum_slowly<E>(sums, from, count, n);
    narrow<E>(static_cast<S*>(target) + at, sums, n);
  }
}

template <typename E>
ExactLoops loops_of() {
  return {&fold<E>, &begin<E>, &narrow<E>};
}

inline ExactLoops find_loops(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return loops_of<Single>();
    case DType::kBFloat16:
      return loops_of<Small<Brain>>();
    case DType::kFloat16:
      return loops_of<Small<Half>>();
    default:
      return {};
  }
}

inline ReduceKernel find_kernel_of(DType dtype) {
  switch (dtype) {
    case DType::kFloat64:
      return &exact_kernel<Double>;
    case DType::kFloat32:
      return &exact_kernel<Single>;
    case DType::kBFloat16:
      return &exact_kernel<Small<Brain>>;
    case DType::kFloat16:
      return &exact_kernel<Small<Half>>;
    default:
      return nullptr;
  }
}

#undef HPCORE_LOOP
