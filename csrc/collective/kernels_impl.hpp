// Purpose: the loops of the reductions. Included once for each instruction set, inside a namespace,
// by kernels_portable.cpp and kernels_avx2.cpp: the same source, so the same bits.
// Threads: pure functions.

#include "collective/kernels_operators.hpp"

constexpr size_t kBlock = 1024;  // elements accumulated at a time: stays in the first-level cache

// The iterations of the next loop do not depend on each other.
#if defined(__clang__)
#define HPCORE_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define HPCORE_INDEPENDENT _Pragma("GCC ivdep")
#endif

// One pass over N sources; target may be one of them: element i depends on elements i only.
template <typename E, int N, typename O>
void reduce_fused(typename E::Stored* target, const void* const* sources, size_t elements,
                  const O op) {
  using S = typename E::Stored;
  const S* a = static_cast<const S*>(sources[0]);
  const S* b = static_cast<const S*>(sources[1]);
  const S* c = static_cast<const S*>(sources[N > 2 ? 2 : 0]);
  const S* d = static_cast<const S*>(sources[N > 3 ? 3 : 0]);
  HPCORE_INDEPENDENT
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
