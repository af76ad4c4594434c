// Purpose: the element types of the reductions (how they are kept, what they are accumulated in)
// and their operators. Included by kernels_impl.hpp only, once for each instruction set. Threads:
// pure functions.

#include "collective/minifloat.hpp"

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
