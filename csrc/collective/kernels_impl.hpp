// Purpose: the loops of the reductions. Included once for each instruction set, inside a namespace,
// by kernels_portable.cpp, kernels_avx2.cpp and kernels_avx512.cpp: the same source, so the same
// bits.
// Threads: pure functions.

#include "collective/kernels_operators.hpp"

// The iterations of the next loop do not depend on each other.
#if defined(__clang__)
#define HPCORE_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define HPCORE_INDEPENDENT _Pragma("GCC ivdep")
#endif

// Memory of any alignment, as words.
template <typename E>
struct Words {
  const std::byte* at;
  typename E::Word operator[](size_t i) const {
    typename E::Word word;
    __builtin_memcpy(&word, at + i * sizeof(word), sizeof(word));
    return word;
  }
};

// Sources joined in one pass. GCC 12 does not vectorise four times four conversions.
template <typename E>
constexpr int kFused = E::kLanes > 2 ? 3 : 4;

// Joins N sources to what `acc` holds (kNext) or to nothing, and leaves
// the result in `acc` or, as the last, in `target`. `acc` has kLanes arrays of `stride`. `target`
// may be one of the sources: word i depends on words i only.
template <typename E, typename O, int N, bool kNext, bool kLast>
__attribute__((noinline)) void pass(std::byte* target, typename E::Acc* acc, size_t stride,
                                    const std::byte* const* sources, size_t words,
                                    const KernelArguments& arguments) {
  using Acc = typename E::Acc;
  const O op(arguments);  // not an argument: it may hold vectors
  const Words<E> a{sources[0]}, b{sources[N > 1 ? 1 : 0]}, c{sources[N > 2 ? 2 : 0]},
      d{sources[N > 3 ? 3 : 0]};
  HPCORE_INDEPENDENT
  for (size_t i = 0; i < words; ++i) {
    Acc lanes[E::kLanes];
    for (int lane = 0; lane < E::kLanes; ++lane) {
      const size_t kept = static_cast<size_t>(lane) * stride + i;
      Acc x = op.first(E::load(a[i], lane));
      if constexpr (kNext) x = op.join(acc[kept], x);
      if constexpr (N > 1) x = op.join(x, op.first(E::load(b[i], lane)));
      if constexpr (N > 2) x = op.join(x, op.first(E::load(c[i], lane)));
      if constexpr (N > 3) x = op.join(x, op.first(E::load(d[i], lane)));
      if constexpr (kLast) {
        lanes[lane] = op.last(x);
      } else {
        acc[kept] = x;
      }
    }
    if constexpr (kLast) {
      const typename E::Word word = E::store(lanes);
      __builtin_memcpy(target + i * sizeof(word), &word, sizeof(word));
    }
  }
}

template <typename E, typename O>
void reduce_few(std::byte* target, const std::byte* const* sources, int count, size_t words,
                const KernelArguments& arguments) {
  switch (count) {
    case 1:
      return pass<E, O, 1, false, true>(target, nullptr, 0, sources, words, arguments);
    case 2:
      return pass<E, O, 2, false, true>(target, nullptr, 0, sources, words, arguments);
    case 3:
      return pass<E, O, 3, false, true>(target, nullptr, 0, sources, words, arguments);
    default:
      return pass<E, O, kFused<E>, false, true>(target, nullptr, 0, sources, words, arguments);
  }
}

constexpr size_t kBlockBytes = 4096;  // accumulated at a time: stays in the first-level cache

template <typename E, typename O>
void reduce_many(std::byte* target, const std::byte* const* sources, int count, size_t words,
                 const KernelArguments& arguments) {
  constexpr size_t kBlock = kBlockBytes / sizeof(typename E::Acc) / E::kLanes;
  typename E::Acc acc[kBlock * E::kLanes];
  const std::byte* from[kFused<E>];
  for (size_t done = 0; done < words; done += kBlock) {
    const size_t n = words - done < kBlock ? words - done : kBlock;
    const size_t offset = done * sizeof(typename E::Word);
    const auto take = [&](int first, int many) {
      for (int k = 0; k < many; ++k) from[k] = sources[first + k] + offset;
      return from;
    };
    pass<E, O, kFused<E>, false, false>(nullptr, acc, kBlock, take(0, kFused<E>), n, arguments);
    int next = kFused<E>;
    for (; count - next > 2; next += 2) {
      pass<E, O, 2, true, false>(nullptr, acc, kBlock, take(next, 2), n, arguments);
    }
    if (count - next == 2) {
      pass<E, O, 2, true, true>(target + offset, acc, kBlock, take(next, 2), n, arguments);
    } else {
      pass<E, O, 1, true, true>(target + offset, acc, kBlock, take(next, 1), n, arguments);
    }
  }
}

template <typename E, typename O>
void reduce_words(std::byte* target, const std::byte* const* sources, int count, size_t words,
                  const KernelArguments& arguments) {
  if (count <= kFused<E>) return reduce_few<E, O>(target, sources, count, words, arguments);
  reduce_many<E, O>(target, sources, count, words, arguments);
}

template <typename E, template <typename> typename O>
void kernel(void* target, const void* const* sources, int count, size_t elements,
            const KernelArguments& arguments) {
  using Op = O<typename E::Acc>;
  auto* out = static_cast<std::byte*>(target);
  const auto* const* from = reinterpret_cast<const std::byte* const*>(sources);
  const size_t words = elements / E::kElements;
  reduce_words<E, Op>(out, from, count, words, arguments);
  if constexpr (E::kElements > 1) {  // what is left is less than a word
    constexpr size_t kWord = sizeof(typename E::Word);
    const size_t left = elements % E::kElements * (kWord / E::kElements);
    if (left == 0) return;
    std::byte padded[kMaxMembers][kWord];
    const std::byte* rest[kMaxMembers];
    for (int k = 0; k < count; ++k) {
      __builtin_memset(padded[k], 0, kWord);
      __builtin_memcpy(padded[k], from[k] + words * kWord, left);
      rest[k] = padded[k];
    }
    reduce_words<E, Op>(padded[0], rest, count, 1, arguments);
    __builtin_memcpy(out + words * kWord, padded[0], left);
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

#ifndef HPCORE_NO_COMPLEX
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
#endif

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
      return float_kernel<Float16>(op);
    case DType::kBFloat16:
      return float_kernel<Packed<Brain, 2>>(op);
    case DType::kFloat8E4M3FN:
      return float_kernel<Packed<Float8E4M3FN, 4>>(op);
    case DType::kFloat8E5M2:
      return float_kernel<Packed<Float8E5M2, 4>>(op);
#ifdef HPCORE_NO_COMPLEX
    case DType::kComplex64:
    case DType::kComplex128:
      return nullptr;
#else
    case DType::kComplex64:
      return complex_kernel<Complex<float>>(op);
    case DType::kComplex128:
      return complex_kernel<Complex<double>>(op);
#endif
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
