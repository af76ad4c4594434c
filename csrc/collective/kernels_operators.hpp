// Purpose: the element types of the reductions (how they are kept, what they are accumulated in)
// and their operators. Included by kernels_impl.hpp only, once for each instruction set. Threads:
// pure functions.

#include "collective/minifloat.hpp"

// An element type is read and written in words of kElements elements; each of a word's kLanes is an
// accumulator of its own. A lane may be a vector of elements.
template <typename T, typename A = T>
struct Plain {
  using Word = T;
  using Acc = A;
  static constexpr size_t kElements = 1;
  static constexpr int kLanes = 1;
  static Acc load(Word x, int) { return static_cast<Acc>(x); }
  static Word store(const Acc* lanes) { return static_cast<Word>(lanes[0]); }
};

// Narrow floats, two or four in a word of 32 bits: all arithmetic is then of one width, and loops
// vectorise without moving elements between lanes.
template <typename Format, int kCount>
struct Packed {
  using Word = uint32_t;
  using Acc = float;
  static constexpr size_t kElements = kCount;
  static constexpr int kLanes = kCount;
  static constexpr int kBits = 32 / kCount;
  static Acc load(Word x, int lane) {
    return Format::decode((x >> (kBits * lane)) & (0xFFFFFFFFu >> (32 - kBits)));
  }
  static Word store(const Acc* lanes) {
    Word word = 0;
    for (int lane = 0; lane < kLanes; ++lane) word |= Format::encode(lanes[lane]) << (kBits * lane);
    return word;
  }
};

struct Bool {
  using Word = uint8_t;
  using Acc = uint8_t;
  static constexpr size_t kElements = 1;
  static constexpr int kLanes = 1;
  static Acc load(Word x, int) { return x != 0; }
  static Word store(const Acc* lanes) { return lanes[0]; }
};

template <typename T>
struct ComplexOf {
  T re, im;
};
template <typename T>
using Complex = Plain<ComplexOf<T>>;

template <typename A>
struct Constant {
  template <typename T>
  static A of(T value) {
    return static_cast<A>(value);
  }
};

#if defined(HPCORE_F16_LANES)
#include "collective/kernels_float16.hpp"
#else
using Float16 = Packed<Half, 2>;
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
  explicit Avg(const KernelArguments& k) : Sum<A>(k), ranks(Constant<A>::of(k.ranks)) {}
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

// keep ? a : x without a branch: GCC 12 makes branches of several in a row, and then no vectors.
template <typename A>
A choose(bool keep, A a, A x) {
  if constexpr (sizeof(A) == 4 && std::is_floating_point_v<A>) {
    const uint32_t mask = -static_cast<uint32_t>(keep);
    return as_float((as_bits(a) & mask) | (as_bits(x) & ~mask));
  } else if constexpr (sizeof(A) == 8 && std::is_floating_point_v<A>) {
    const uint64_t mask = -static_cast<uint64_t>(keep);
    return __builtin_bit_cast(
        A, (__builtin_bit_cast(uint64_t, a) & mask) | (__builtin_bit_cast(uint64_t, x) & ~mask));
  } else {
    return keep ? a : x;
  }
}
// The first NaN is kept.
template <typename A>
struct Min : Op<A> {
  using Op<A>::Op;
  A join(A a, A x) const { return choose((a <= x) | (a != a), a, x); }
};
template <typename A>
struct Max : Op<A> {
  using Op<A>::Op;
  A join(A a, A x) const { return choose((a >= x) | (a != a), a, x); }
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
  explicit PremulSum(const KernelArguments& k) : Sum<A>(k), factor(Constant<A>::of(k.factor)) {}
  A first(A x) const { return x * factor; }
};
