// Purpose: float16 for the reductions with the CPU's conversions, HPCORE_F16_LANES elements at
// once: the same values as MiniFloat's; NaNs, whose payload the CPU would keep, are made the same
// too. Threads: pure functions. Included by kernels_operators.hpp only, once for each instruction
// set.

typedef float FloatLanes __attribute__((vector_size(4 * HPCORE_F16_LANES)));

template <>
struct Constant<FloatLanes> {
  template <typename T>
  static FloatLanes of(T value) {
    FloatLanes lanes;
    for (int i = 0; i < HPCORE_F16_LANES; ++i) lanes[i] = static_cast<float>(value);
    return lanes;
  }
};

struct Float16 {
  using Acc = FloatLanes;
  static constexpr size_t kElements = HPCORE_F16_LANES;
  static constexpr int kLanes = 1;
  static constexpr int kRounding = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
#if HPCORE_F16_LANES == 16
  using Word = __m256i;
  static Acc load(Word x, int) { return _mm512_maskz_cvtph_ps(0xFFFF, x); }
  static Word store(const Acc* lanes) {
    const __m512 x = lanes[0];
    const __m512 sign = _mm512_and_ps(x, _mm512_set1_ps(-0.0f));
    const __m512 nan = _mm512_or_ps(sign, _mm512_set1_ps(__builtin_nanf("")));
    const __mmask16 unordered = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    return _mm512_maskz_cvtps_ph(0xFFFF, _mm512_mask_blend_ps(unordered, x, nan), kRounding);
  }
#else
  using Word = __m128i;
  static Acc load(Word x, int) { return _mm256_cvtph_ps(x); }
  static Word store(const Acc* lanes) {
    const __m256 x = lanes[0];
    const __m256 sign = _mm256_and_ps(x, _mm256_set1_ps(-0.0f));
    const __m256 nan = _mm256_or_ps(sign, _mm256_set1_ps(__builtin_nanf("")));
    const __m256 unordered = _mm256_cmp_ps(x, x, _CMP_UNORD_Q);
    return _mm256_cvtps_ph(_mm256_blendv_ps(x, nan, unordered), kRounding);
  }
#endif
};

typedef int MaskLanes __attribute__((vector_size(4 * HPCORE_F16_LANES)));
inline FloatLanes choose(MaskLanes keep, FloatLanes a, FloatLanes x) { return keep ? a : x; }
