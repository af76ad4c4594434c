#include "base/digest_kernel.hpp"

#if defined(__x86_64__)
#if defined(__GNUC__) && !defined(__clang__)
// GCC 12's own header is what it warns of (its bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <immintrin.h>

#include <array>

#define HPCORE_CRC __attribute__((target("sse4.2")))
#define HPCORE_FOLD __attribute__((target("sse4.2,pclmul,avx512f,vpclmulqdq")))

namespace hpcore {
namespace {

using Chains = std::array<uint64_t, 4>;  // a CRC each, in the register the instruction wants

Chains chains_of(const Digest128& lanes) { return {lanes[0], lanes[1], lanes[2], lanes[3]}; }

Digest128 lanes_of(const Chains& chains) {
  Digest128 lanes;
  for (size_t i = 0; i < 4; ++i) lanes[i] = static_cast<uint32_t>(chains[i]);
  return lanes;
}

HPCORE_CRC inline void crc_stride(Chains& chains, const unsigned char* at) {
  for (size_t i = 0; i < 4; ++i) {
    chains[i] = _mm_crc32_u64(chains[i], load_digest_word(at + 8 * i));
  }
}

HPCORE_CRC void crc_lanes(Digest128& lanes, const unsigned char* at, size_t strides) {
  Chains chains = chains_of(lanes);
  for (; strides > 0; --strides, at += 32) crc_stride(chains, at);
  lanes = lanes_of(chains);
}

HPCORE_CRC uint32_t crc_stream(uint32_t crc, const unsigned char* at, size_t bytes) {
  uint64_t value = crc;
  for (; bytes >= 8; bytes -= 8, at += 8) value = _mm_crc32_u64(value, load_digest_word(at));
  auto out = static_cast<uint32_t>(value);
  for (; bytes > 0; --bytes, ++at) out = _mm_crc32_u8(out, *at);
  return out;
}

// The stream's strides and the 32-byte blocks that can be stored past the caches need not begin at
// the same byte, so both walk on their own: the stores by up to 31 bytes ahead of the strides.
__attribute__((target("sse4.2,avx"))) void crc_copy(Digest128& lanes, unsigned char* to,
                                                    const unsigned char* at, size_t strides) {
  Chains chains = chains_of(lanes);
  const size_t head = -reinterpret_cast<uintptr_t>(to) % 32;
  std::memcpy(to, at, head);
  const size_t blocks = strides - (head > 0 ? 1 : 0);
  const unsigned char* from = at + head;
  auto* into = reinterpret_cast<__m256i*>(to + head);
  for (size_t i = 0; i < blocks; ++i, at += 32, from += 32, ++into) {
    const __m256i block = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    crc_stride(chains, at);
    _mm256_stream_si256(into, block);
  }
  _mm_sfence();
  if (head > 0) {
    std::memcpy(into, from, 32 - head);
    crc_stride(chains, at);
  }
  lanes = lanes_of(chains);
}

// --- Folding. Four strides (128 bytes) are two vectors; each is permuted so that its four quarters
// hold two following words of lane 0, 1, 2, 3. A quarter is a polynomial of 128 bits; multiplied by
// x^(distance) mod P it may be added to the one so many bits behind it in its lane. What is left at
// the end goes through the instruction. (Gopal et al., Fast CRC Computation for Generic Polynomials
// Using PCLMULQDQ, Intel 2009.)

constexpr uint32_t kPolynomial = 0x82F63B78;  // reflected: bit 31 is x^0

constexpr uint32_t times(uint32_t a, uint32_t b) {
  uint32_t product = 0;
  for (int bit = 31; bit >= 0; --bit) {
    if ((b >> bit) & 1) product ^= a;
    a = (a >> 1) ^ ((a & 1) ? kPolynomial : 0);
  }
  return product;
}

constexpr uint32_t x_to(uint64_t power) {
  uint32_t result = 0x80000000;
  for (uint32_t square = 0x40000000; power > 0; power >>= 1, square = times(square, square)) {
    if (power & 1) result = times(result, square);
  }
  return result;
}

// Beside a fold of 256 bytes, two runs of crc32 instructions over 160 bytes each: they use other
// parts of the CPU. 111 to 118 GB/s from the L2 cache, folding alone 71, the instruction alone 46
// (Zen 5; CPU time). A segment is what is folded, then the first run, then the second.
constexpr size_t kVectors = 4;      // in a fold
constexpr size_t kFoldStrides = 8;  // in a fold
constexpr size_t kRunStrides = 5;   // of one run, beside a fold
constexpr size_t kRounds = 128;     // of a segment
constexpr size_t kRunOfSegment = kRunStrides * kRounds;
constexpr size_t kSegmentStrides = kFoldStrides * (kRounds + 1) + 2 * kRunOfSegment;

// The product of reflected polynomials has one power too many: hence the ones, and the 33, as the
// crc32 instruction multiplies by x^32 and reduces.
constexpr uint64_t kFoldDistance = kFoldStrides * 64;
constexpr uint64_t kFoldFirst = static_cast<uint64_t>(x_to(kFoldDistance + 64 - 1)) << 32;
constexpr uint64_t kFoldSecond = static_cast<uint64_t>(x_to(kFoldDistance - 1)) << 32;
constexpr uint64_t kRunShift = x_to(kRunOfSegment * 64 - 33);

struct Fold {
  __m512i vectors[kVectors];
};

HPCORE_FOLD inline __m512i load_pairs(const unsigned char* at) {
  const __m512i order = _mm512_set_epi64(7, 3, 6, 2, 5, 1, 4, 0);
  return _mm512_permutexvar_epi64(order, _mm512_loadu_si512(at));
}

HPCORE_FOLD inline void begin_fold(Fold& fold, const Digest128& lanes, const unsigned char* at) {
  for (size_t i = 0; i < kVectors; ++i) fold.vectors[i] = load_pairs(at + 64 * i);
  const __m512i before = _mm512_set_epi64(0, lanes[3], 0, lanes[2], 0, lanes[1], 0, lanes[0]);
  fold.vectors[0] = _mm512_xor_si512(fold.vectors[0], before);
}

HPCORE_FOLD inline void fold_in(Fold& fold, const unsigned char* at) {
  const __m512i factors = _mm512_set_epi64(kFoldSecond, kFoldFirst, kFoldSecond, kFoldFirst,
                                           kFoldSecond, kFoldFirst, kFoldSecond, kFoldFirst);
#pragma GCC unroll 4
  for (size_t i = 0; i < kVectors; ++i) {
    const __m512i first = _mm512_clmulepi64_epi128(fold.vectors[i], factors, 0x00);
    const __m512i second = _mm512_clmulepi64_epi128(fold.vectors[i], factors, 0x11);
    fold.vectors[i] = _mm512_ternarylogic_epi64(first, second, load_pairs(at + 64 * i), 0x96);
  }
}

HPCORE_FOLD inline Chains end_fold(const Fold& fold) {
  alignas(64) uint64_t words[8 * kVectors];
  for (size_t i = 0; i < kVectors; ++i) _mm512_store_si512(words + 8 * i, fold.vectors[i]);
  Chains chains{};
  for (size_t i = 0; i < 8 * kVectors; i += 8) {
    for (size_t lane = 0; lane < 4; ++lane) {
      chains[lane] = _mm_crc32_u64(chains[lane], words[i + 2 * lane]);
      chains[lane] = _mm_crc32_u64(chains[lane], words[i + 2 * lane + 1]);
    }
  }
  return chains;
}

// The chains as if a run of zeros had followed, and then what the run gave.
HPCORE_FOLD inline Chains append_run(const Chains& chains, const Chains& run) {
  Chains out;
  for (size_t i = 0; i < 4; ++i) {
    const __m128i product =
        _mm_clmulepi64_si128(_mm_cvtsi64_si128(static_cast<int64_t>(chains[i])),
                             _mm_cvtsi64_si128(static_cast<int64_t>(kRunShift)), 0);
    out[i] = _mm_crc32_u64(0, static_cast<uint64_t>(_mm_cvtsi128_si64(product))) ^ run[i];
  }
  return out;
}

HPCORE_FOLD inline Chains fold_segment(const Digest128& lanes, const unsigned char* at) {
  Fold fold;
  begin_fold(fold, lanes, at);
  const unsigned char* folded = at + 32 * kFoldStrides;
  const unsigned char* first = at + 32 * kFoldStrides * (kRounds + 1);
  const unsigned char* second = first + 32 * kRunOfSegment;
  Chains one{};
  Chains two{};
  for (size_t round = 0; round < kRounds; ++round, folded += 32 * kFoldStrides) {
    fold_in(fold, folded);
#pragma GCC unroll 5
    for (size_t i = 0; i < kRunStrides; ++i, first += 32, second += 32) {
      crc_stride(one, first);
      crc_stride(two, second);
    }
  }
  return append_run(append_run(end_fold(fold), one), two);
}

HPCORE_FOLD void fold_lanes(Digest128& lanes, const unsigned char* at, size_t strides) {
  for (; strides >= kSegmentStrides; strides -= kSegmentStrides, at += 32 * kSegmentStrides) {
    lanes = lanes_of(fold_segment(lanes, at));
  }
  if (strides >= 4 * kFoldStrides) {  // below, the instruction is as fast
    Fold fold;
    begin_fold(fold, lanes, at);
    for (;;) {
      strides -= kFoldStrides;
      at += 32 * kFoldStrides;
      if (strides < kFoldStrides) break;
      fold_in(fold, at);
    }
    lanes = lanes_of(end_fold(fold));
  }
  crc_lanes(lanes, at, strides);
}

}  // namespace

std::vector<DigestKernel> hardware_digest_kernels() {
  std::vector<DigestKernel> kernels;
  if (!__builtin_cpu_supports("sse4.2")) return kernels;
  auto* copy = __builtin_cpu_supports("avx") ? crc_copy : nullptr;
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("vpclmulqdq") &&
      __builtin_cpu_supports("pclmul")) {
    kernels.push_back({"vpclmulqdq", fold_lanes, crc_stream, copy});
  }
  kernels.push_back({"sse4.2", crc_lanes, crc_stream, copy});
  return kernels;
}

}  // namespace hpcore
#endif
