// Purpose: float16, bfloat16 and float8 to and from float32, rounding to nearest even with torch's
// rules for overflow and NaN. Branch-free, so that loops over them vectorise; independent of the
// flush-to-zero mode. Threads: pure functions. Included by the kernels only, inside a namespace of
// theirs: the same code is compiled for several instruction sets.
// Source of the rounding: the bit tricks that c10's Half.h and Float8_*.h document (FP16 library).

inline float as_float(uint32_t bits) { return __builtin_bit_cast(float, bits); }
inline uint32_t as_bits(float value) { return __builtin_bit_cast(uint32_t, value); }

// kFinite: no infinities, one NaN (all ones): e4m3fn.
template <int kExponentBits, int kMantissaBits, bool kFinite>
struct MiniFloat {
  static constexpr uint32_t kBias = (1u << (kExponentBits - 1)) - 1;
  static constexpr uint32_t kShift = 23 - kMantissaBits;
  static constexpr uint32_t kMagnitude = (1u << (kExponentBits + kMantissaBits)) - 1;
  static constexpr uint32_t kSignShift = 31 - kExponentBits - kMantissaBits;
  static constexpr uint32_t kSmallestNormal = (128 - kBias) << 23;
  static constexpr uint32_t kInfinity = ((1u << kExponentBits) - 1) << kMantissaBits;

  static float decode(uint32_t stored) {
    const uint32_t magnitude = stored & kMagnitude;
    const uint32_t sign = (stored & (kMagnitude + 1)) << kSignShift;
    const uint32_t shifted = magnitude << kShift;
    const uint32_t normal = shifted + ((127 - kBias) << 23);
    const uint32_t subnormal =
        as_bits(as_float(kSmallestNormal + shifted) - as_float(kSmallestNormal));
    uint32_t bits = magnitude < (1u << kMantissaBits) ? subnormal : normal;
    if constexpr (kFinite) {
      bits = magnitude == kMagnitude ? 0x7FC00000u : bits;
    } else {
      bits = magnitude >= kInfinity ? (shifted | 0x7F800000u) : bits;
    }
    return as_float(bits | sign);
  }

  static uint32_t encode(float value) {
    constexpr uint32_t kMagic = (127 - kBias + kShift + 1) << 23;
    constexpr uint32_t kOverflow = (128 + kBias) << 23;
    const uint32_t signed_bits = as_bits(value);
    const uint32_t bits = signed_bits & 0x7FFFFFFFu;
    const uint32_t subnormal = as_bits(as_float(bits) + as_float(kMagic)) - kMagic;
    const uint32_t odd = (bits >> kShift) & 1;
    const uint32_t normal =
        (bits + ((kBias - 127) << 23) + ((1u << (kShift - 1)) - 1) + odd) >> kShift;
    uint32_t result = bits < kSmallestNormal ? subnormal : normal;
    if constexpr (kFinite) {
      constexpr uint32_t kTooLarge = 0x43F00000u;  // 480: the first value past the largest, 448
      result = bits >= kTooLarge ? kMagnitude : result;
    } else {
      constexpr uint32_t kNan = kMantissaBits == 2 ? kMagnitude : kInfinity | (kInfinity >> 1);
      result = bits >= kOverflow ? kInfinity : result;
      result = bits > 0x7F800000u ? (kNan & kMagnitude) : result;
    }
    return result | ((signed_bits >> 31) << (kExponentBits + kMantissaBits));
  }
};

using Half = MiniFloat<5, 10, false>;
using Float8E4M3FN = MiniFloat<4, 3, true>;
using Float8E5M2 = MiniFloat<5, 2, false>;

struct Brain {
  static float decode(uint32_t stored) { return as_float(stored << 16); }
  static uint32_t encode(float value) {
    const uint32_t bits = as_bits(value);
    const uint32_t rounded = (bits + 0x7FFFu + ((bits >> 16) & 1)) >> 16;
    return (bits & 0x7FFFFFFFu) > 0x7F800000u ? 0x7FC0u : rounded;
  }
};
