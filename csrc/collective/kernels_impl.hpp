// Purpose: the loops of the reductions. Included once for each instruction set, inside a namespace,
// by kernels_portable.cpp and kernels_avx2.cpp: the same source, so the same bits.
// Threads: pure functions.

#include "collective/minifloat.hpp"

constexpr size_t kBlock = 1024;  // elements accumulated at a time: stays in the first-level cache

// How a type is kept in memory and what it is accumulated in.
template <typename T, typename A = T>
struct Plain {
  using Stored = T;
  using Acc = A;
  static Acc load(Stored x) { return static_cast<Acc>(x); }
  static Stored store(Acc x) { return static_cast<Stored>(x); }
};

struct BFloat16 {
  using Stored = uint16_t;
  using Acc = float;
  static Acc load(Stored x) { return Brain::decode(x); }
  static Stored store(Acc x) { return Brain::encode(x); }
};

template <typename T, typename Format>
struct Narrow {
  using Stored = T;
  static __attribute__((noinline)) void decode(float* __restrict to, const T* from, size_t n) {
    for (size_t i = 0; i < n; ++i) to[i] = Format::decode(from[i]);
  }
  static __attribute__((noinline)) void encode(T* to, const float* __restrict from, size_t n) {
    for (size_t i = 0; i < n; ++i) to[i] = Format::encode(from[i]);
  }
};

struct Bool {
  using Stored = uint8_t;
  using Acc = uint8_t;
  static Acc load(Stored x) { return x != 0; }
  static Stored store(Acc x) { return x; }
};

template <typename T>
struct ComplexOf {
  T re, im;
};

template <typename T>
struct Complex {
  using Stored = ComplexOf<T>;
  using Acc = ComplexOf<T>;
  static Acc load(Stored x) { return x; }
  static Stored store(Acc x) { return x; }
};

#ifdef HPCORE_F16C
// float16 with the CPU's conversions: the same values; NaNs made the same too.
struct Float16 {
  using Stored = uint16_t;
  static __attribute__((noinline)) void decode(float* __restrict to, const uint16_t* from,
                                               size_t n) {
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
      const __m128i codes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i));
      _mm256_storeu_ps(to + i, _mm256_cvtph_ps(codes));
    }
    for (; i < n; ++i) to[i] = Half::decode(from[i]);
  }
  static __attribute__((noinline)) void encode(uint16_t* to, const float* __restrict from,
                                               size_t n) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    const __m256 plain_nan = _mm256_set1_ps(__builtin_nanf(""));
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
      const __m256 x = _mm256_loadu_ps(from + i);
      const __m256 nan = _mm256_or_ps(_mm256_and_ps(x, sign), plain_nan);
      const __m256 y = _mm256_blendv_ps(x, nan, _mm256_cmp_ps(x, x, _CMP_UNORD_Q));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i),
                       _mm256_cvtps_ph(y, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    }
    for (; i < n; ++i) to[i] = Half::encode(from[i]);
  }
};
#else
using Float16 = Narrow<uint16_t, Half>;
#endif

// Operations: first(x) takes a contribution in, join adds the next, last finishes.
template <typename A>
struct Op {
  explicit Op(const KernelArguments&) {}
  A first(A x) const { return x; }
  A last(A x) const { return x; }
};

template <typename A>
struct Sum : Op<A> {
  using Op<A>::Op;
  A join(A a, A x) const { return static_cast<A>(a + x); }
};
template <typename T>
struct Sum<ComplexOf<T>> : Op<ComplexOf<T>> {
  using C = ComplexOf<T>;
  using Op<C>::Op;
  C join(C a, C x) const { return {a.re + x.re, a.im + x.im}; }
};

template <typename A>
struct Avg : Sum<A> {
  A ranks;
  explicit Avg(const KernelArguments& k) : Sum<A>(k), ranks(static_cast<A>(k.ranks)) {}
  A last(A x) const { return x / ranks; }
};
template <>
struct Avg<int64_t> : Op<int64_t> {
  int64_t ranks;
  explicit Avg(const KernelArguments& k) : Op<int64_t>(k), ranks(k.ranks) {}
  int64_t join(int64_t a, int64_t x) const {
    return static_cast<int64_t>(static_cast<uint64_t>(a) + static_cast<uint64_t>(x));
  }
  int64_t last(int64_t x) const { return x / ranks; }
};
template <typename T>
struct Avg<ComplexOf<T>> : Sum<ComplexOf<T>> {
  using C = ComplexOf<T>;
  T ranks;
  explicit Avg(const KernelArguments& k) : Sum<C>(k), ranks(static_cast<T>(k.ranks)) {}
  C last(C x) const { return {x.re / ranks, x.im / ranks}; }
};

template <typename A>
struct Product : Op<A> {
  using Op<A>::Op;
  A join(A a, A x) const { return static_cast<A>(a * x); }
};
template <>
struct Product<uint16_t> : Op<uint16_t> {  // would be promoted to int, and overflow it
  using Op<uint16_t>::Op;
  uint16_t join(uint16_t a, uint16_t x) const {
    return static_cast<uint16_t>(static_cast<uint32_t>(a) * x);
  }
};
template <typename T>
struct Product<ComplexOf<T>> : Op<ComplexOf<T>> {
  using C = ComplexOf<T>;
  using Op<C>::Op;
  C join(C a, C x) const { return {a.re * x.re - a.im * x.im, a.re * x.im + a.im * x.re}; }
};

template <typename A>
struct Min : Op<A> {
  using Op<A>::Op;
  A join(A a, A x) const { return (x < a || (x != x && a == a)) ? x : a; }
};
template <typename A>
struct Max : Op<A> {
  using Op<A>::Op;
  A join(A a, A x) const { return (x > a || (x != x && a == a)) ? x : a; }
};
template <typename A>
struct BitAnd : Op<A> {
  using Op<A>::Op;
  A join(A a, A x) const { return static_cast<A>(a & x); }
};
template <typename A>
struct BitOr : Op<A> {
  using Op<A>::Op;
  A join(A a, A x) const { return static_cast<A>(a | x); }
};
template <typename A>
struct BitXor : Op<A> {
  using Op<A>::Op;
  A join(A a, A x) const { return static_cast<A>(a ^ x); }
};
template <typename A>
struct PremulSum : Sum<A> {
  A factor;
  explicit PremulSum(const KernelArguments& k) : Sum<A>(k), factor(static_cast<A>(k.factor)) {}
  A first(A x) const { return x * factor; }
};

// One pass over N sources; target may be one of them: element i depends on elements i only.
template <typename E, int N, typename O>
void reduce_fused(typename E::Stored* target, const void* const* sources, size_t elements,
                  const O op) {
  using S = typename E::Stored;
  const S* a = static_cast<const S*>(sources[0]);
  const S* b = static_cast<const S*>(sources[1]);
  const S* c = static_cast<const S*>(sources[N > 2 ? 2 : 0]);
  const S* d = static_cast<const S*>(sources[N > 3 ? 3 : 0]);
#pragma GCC ivdep
  for (size_t i = 0; i < elements; ++i) {
    auto acc = op.join(op.first(E::load(a[i])), op.first(E::load(b[i])));
    if constexpr (N > 2) acc = op.join(acc, op.first(E::load(c[i])));
    if constexpr (N > 3) acc = op.join(acc, op.first(E::load(d[i])));
    target[i] = E::store(op.last(acc));
  }
}

// The passes of the other kernels. Not inlined: GCC 12 vectorises them only on their own (5 -> 14
// GB/s of float32 with six sources).
#define HPCORE_PASS __attribute__((noinline)) void

template <typename E, typename O>
HPCORE_PASS take_first(typename E::Acc* __restrict acc, const typename E::Stored* source,
                       size_t elements, const O op) {
  for (size_t i = 0; i < elements; ++i) acc[i] = op.first(E::load(source[i]));
}
template <typename E, typename O>
HPCORE_PASS join_next(typename E::Acc* __restrict acc, const typename E::Stored* source,
                      size_t elements, const O op) {
  for (size_t i = 0; i < elements; ++i) acc[i] = op.join(acc[i], op.first(E::load(source[i])));
}
template <typename E, typename O>
HPCORE_PASS put_last(typename E::Stored* target, const typename E::Acc* __restrict acc,
                     size_t elements, const O op) {
  for (size_t i = 0; i < elements; ++i) target[i] = E::store(op.last(acc[i]));
}

template <typename E, template <typename> typename O>
void kernel(void* target, const void* const* sources, int count, size_t elements,
            const KernelArguments& arguments) {
  using S = typename E::Stored;
  S* out = static_cast<S*>(target);
  const O<typename E::Acc> op(arguments);
  if (count == 2) return reduce_fused<E, 2>(out, sources, elements, op);
  if (count == 3) return reduce_fused<E, 3>(out, sources, elements, op);
  if (count == 4) return reduce_fused<E, 4>(out, sources, elements, op);
  typename E::Acc acc[kBlock];
  for (size_t from = 0; from < elements; from += kBlock) {
    const size_t n = elements - from < kBlock ? elements - from : kBlock;
    take_first<E>(acc, static_cast<const S*>(sources[0]) + from, n, op);
    for (int k = 1; k < count; ++k) {
      join_next<E>(acc, static_cast<const S*>(sources[k]) + from, n, op);
    }
    put_last<E>(out + from, acc, n, op);
  }
}

// For narrow floats whose conversion is not a shift: block by block through float32.
template <typename E, template <typename> typename O>
void narrow_kernel(void* target, const void* const* sources, int count, size_t elements,
                   const KernelArguments& arguments) {
  using S = typename E::Stored;
  using F = Plain<float>;
  const O<float> op(arguments);
  float acc[kBlock], next[kBlock];
  for (size_t from = 0; from < elements; from += kBlock) {
    const size_t n = elements - from < kBlock ? elements - from : kBlock;
    E::decode(next, static_cast<const S*>(sources[0]) + from, n);
    take_first<F>(acc, next, n, op);
    for (int k = 1; k < count; ++k) {
      E::decode(next, static_cast<const S*>(sources[k]) + from, n);
      join_next<F>(acc, next, n, op);
    }
    put_last<F>(next, acc, n, op);
    E::encode(static_cast<S*>(target) + from, next, n);
  }
}

template <typename E>
ReduceKernel float_kernel(ReduceOp op) {
  switch (op) {
    case ReduceOp::kSum:
      return &kernel<E, Sum>;
    case ReduceOp::kAvg:
      return &kernel<E, Avg>;
    case ReduceOp::kProduct:
      return &kernel<E, Product>;
    case ReduceOp::kMin:
      return &kernel<E, Min>;
    case ReduceOp::kMax:
      return &kernel<E, Max>;
    case ReduceOp::kPremulSum:
      return &kernel<E, PremulSum>;
    default:
      return nullptr;
  }
}

template <typename E>
ReduceKernel narrow_float_kernel(ReduceOp op) {
  switch (op) {
    case ReduceOp::kSum:
      return &narrow_kernel<E, Sum>;
    case ReduceOp::kAvg:
      return &narrow_kernel<E, Avg>;
    case ReduceOp::kProduct:
      return &narrow_kernel<E, Product>;
    case ReduceOp::kMin:
      return &narrow_kernel<E, Min>;
    case ReduceOp::kMax:
      return &narrow_kernel<E, Max>;
    case ReduceOp::kPremulSum:
      return &narrow_kernel<E, PremulSum>;
    default:
      return nullptr;
  }
}

template <typename E>
ReduceKernel complex_kernel(ReduceOp op) {
  switch (op) {
    case ReduceOp::kSum:
      return &kernel<E, Sum>;
    case ReduceOp::kAvg:
      return &kernel<E, Avg>;
    case ReduceOp::kProduct:
      return &kernel<E, Product>;
    default:
      return nullptr;
  }
}

// T decides about order and division; what does not depend on the sign is computed as unsigned U.
template <typename T, typename U, typename Wide>
ReduceKernel integer_kernel(ReduceOp op) {
  switch (op) {
    case ReduceOp::kSum:
      return &kernel<Plain<U>, Sum>;
    case ReduceOp::kAvg:
      return &kernel<Plain<T, Wide>, Avg>;
    case ReduceOp::kProduct:
      return &kernel<Plain<U>, Product>;
    case ReduceOp::kMin:
      return &kernel<Plain<T>, Min>;
    case ReduceOp::kMax:
      return &kernel<Plain<T>, Max>;
    case ReduceOp::kBitAnd:
      return &kernel<Plain<U>, BitAnd>;
    case ReduceOp::kBitOr:
      return &kernel<Plain<U>, BitOr>;
    case ReduceOp::kBitXor:
      return &kernel<Plain<U>, BitXor>;
    default:
      return nullptr;
  }
}

inline ReduceKernel bool_kernel(ReduceOp op) {
  switch (op) {
    case ReduceOp::kSum:
    case ReduceOp::kMax:
    case ReduceOp::kBitOr:
      return &kernel<Bool, BitOr>;
    case ReduceOp::kProduct:
    case ReduceOp::kMin:
    case ReduceOp::kBitAnd:
      return &kernel<Bool, BitAnd>;
    case ReduceOp::kBitXor:
      return &kernel<Bool, BitXor>;
    default:
      return nullptr;
  }
}

ReduceKernel find(DType dtype, ReduceOp op) {
  switch (dtype) {
    case DType::kFloat64:
      return float_kernel<Plain<double>>(op);
    case DType::kFloat32:
      return float_kernel<Plain<float>>(op);
    case DType::kFloat16:
      return narrow_float_kernel<Float16>(op);
    case DType::kBFloat16:
      return float_kernel<BFloat16>(op);
    case DType::kFloat8E4M3FN:
      return narrow_float_kernel<Narrow<uint8_t, Float8E4M3FN>>(op);
    case DType::kFloat8E5M2:
      return narrow_float_kernel<Narrow<uint8_t, Float8E5M2>>(op);
    case DType::kComplex64:
      return complex_kernel<Complex<float>>(op);
    case DType::kComplex128:
      return complex_kernel<Complex<double>>(op);
    case DType::kInt8:
      return integer_kernel<int8_t, uint8_t, int64_t>(op);
    case DType::kUInt8:
      return integer_kernel<uint8_t, uint8_t, uint64_t>(op);
    case DType::kInt16:
      return integer_kernel<int16_t, uint16_t, int64_t>(op);
    case DType::kUInt16:
      return integer_kernel<uint16_t, uint16_t, uint64_t>(op);
    case DType::kInt32:
      return integer_kernel<int32_t, uint32_t, int64_t>(op);
    case DType::kUInt32:
      return integer_kernel<uint32_t, uint32_t, uint64_t>(op);
    case DType::kInt64:
      return integer_kernel<int64_t, uint64_t, int64_t>(op);
    case DType::kUInt64:
      return integer_kernel<uint64_t, uint64_t, uint64_t>(op);
    case DType::kBool:
      return bool_kernel(op);
  }
  return nullptr;
}
