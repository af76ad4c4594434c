#include "base/digest.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_acle.h>
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace hpcore {
namespace {

constexpr uint32_t kPolynomial = 0x82F63B78;  // CRC-32C, reflected

using Tables = std::array<std::array<uint32_t, 256>, 8>;

constexpr Tables make_tables() {
  Tables tables{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) ? kPolynomial : 0);
    tables[0][byte] = crc;
  }
  for (size_t t = 1; t < 8; ++t) {
    for (size_t byte = 0; byte < 256; ++byte) {
      const uint32_t crc = tables[t - 1][byte];
      tables[t][byte] = (crc >> 8) ^ tables[0][crc & 0xFF];
    }
  }
  return tables;
}

constexpr Tables kTables = make_tables();

uint64_t load_word(const unsigned char* at) {
  uint64_t word;
  std::memcpy(&word, at, sizeof word);
  if constexpr (std::endian::native == std::endian::big) word = __builtin_bswap64(word);
  return word;
}

// Slicing by eight: the portable form of one crc32 instruction on 8 bytes.
uint32_t portable_word(uint32_t crc, uint64_t word) {
  word ^= crc;
  uint32_t out = 0;
  for (size_t i = 0; i < 8; ++i) out ^= kTables[7 - i][(word >> (8 * i)) & 0xFF];
  return out;
}

uint32_t portable_byte(uint32_t crc, unsigned char byte) {
  return (crc >> 8) ^ kTables[0][(crc ^ byte) & 0xFF];
}

// Both functions below exist once a code: `lanes` takes whole strides of 32 bytes, `stream` any
// number of bytes.
struct Portable {
  static void lanes(Digest128& lanes, const unsigned char* at, size_t strides) {
    for (; strides > 0; --strides, at += 32) {
      for (size_t lane = 0; lane < 4; ++lane) {
        lanes[lane] = portable_word(lanes[lane], load_word(at + 8 * lane));
      }
    }
  }
  static uint32_t stream(uint32_t crc, const unsigned char* at, size_t bytes) {
    for (; bytes >= 8; bytes -= 8, at += 8) crc = portable_word(crc, load_word(at));
    for (; bytes > 0; --bytes, ++at) crc = portable_byte(crc, *at);
    return crc;
  }
};

#if defined(__x86_64__)
#define HPCORE_CRC_TARGET __attribute__((target("sse4.2")))
#define HPCORE_CRC_WORD(crc, word) _mm_crc32_u64(crc, word)
#define HPCORE_CRC_BYTE(crc, byte) _mm_crc32_u8(crc, byte)
using LaneRegister = uint64_t;
bool hardware_present() { return __builtin_cpu_supports("sse4.2"); }
constexpr const char* kHardwareName = "sse4.2";
#elif defined(__aarch64__)
#if defined(__clang__)
#define HPCORE_CRC_TARGET __attribute__((target("crc")))
#else
#define HPCORE_CRC_TARGET __attribute__((target("+crc")))
#endif
#define HPCORE_CRC_WORD(crc, word) __crc32cd(crc, word)
#define HPCORE_CRC_BYTE(crc, byte) __crc32cb(crc, byte)
using LaneRegister = uint32_t;
bool hardware_present() { return (getauxval(AT_HWCAP) & HWCAP_CRC32) != 0; }
constexpr const char* kHardwareName = "armv8-crc";
#endif

#if defined(HPCORE_CRC_TARGET)
struct Hardware {
  HPCORE_CRC_TARGET static void lanes(Digest128& lanes, const unsigned char* at, size_t strides) {
    LaneRegister a = lanes[0], b = lanes[1], c = lanes[2], d = lanes[3];
    for (; strides > 0; --strides, at += 32) {
      a = HPCORE_CRC_WORD(a, load_word(at));
      b = HPCORE_CRC_WORD(b, load_word(at + 8));
      c = HPCORE_CRC_WORD(c, load_word(at + 16));
      d = HPCORE_CRC_WORD(d, load_word(at + 24));
    }
    lanes = {static_cast<uint32_t>(a), static_cast<uint32_t>(b), static_cast<uint32_t>(c),
             static_cast<uint32_t>(d)};
  }
  HPCORE_CRC_TARGET static uint32_t stream(uint32_t crc, const unsigned char* at, size_t bytes) {
    LaneRegister value = crc;
    for (; bytes >= 8; bytes -= 8, at += 8) value = HPCORE_CRC_WORD(value, load_word(at));
    uint32_t out = static_cast<uint32_t>(value);
    for (; bytes > 0; --bytes, ++at) out = HPCORE_CRC_BYTE(out, *at);
    return out;
  }
#if defined(__x86_64__)
  // As lanes(), and stores what it read to `to`. The stream's strides and the 32-byte blocks that
  // can be stored past the caches need not begin at the same byte, so both walk on their own: the
  // stores by up to 31 bytes ahead of the strides.
  __attribute__((target("sse4.2,avx"))) static void copy(Digest128& lanes, unsigned char* to,
                                                         const unsigned char* at, size_t strides) {
    LaneRegister a = lanes[0], b = lanes[1], c = lanes[2], d = lanes[3];
    const size_t head = -reinterpret_cast<uintptr_t>(to) % 32;
    std::memcpy(to, at, head);
    const size_t blocks = strides - (head > 0 ? 1 : 0);
    const unsigned char* from = at + head;
    auto* into = reinterpret_cast<__m256i*>(to + head);
    for (size_t i = 0; i < blocks; ++i, at += 32, from += 32, ++into) {
      const __m256i block = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
      a = HPCORE_CRC_WORD(a, load_word(at));
      b = HPCORE_CRC_WORD(b, load_word(at + 8));
      c = HPCORE_CRC_WORD(c, load_word(at + 16));
      d = HPCORE_CRC_WORD(d, load_word(at + 24));
      _mm256_stream_si256(into, block);
    }
    _mm_sfence();
    lanes = {static_cast<uint32_t>(a), static_cast<uint32_t>(b), static_cast<uint32_t>(c),
             static_cast<uint32_t>(d)};
    if (head > 0) {
      std::memcpy(into, from, 32 - head);
      Hardware::lanes(lanes, at, 1);
    }
  }
#endif
};
#else
using Hardware = Portable;
bool hardware_present() { return false; }
constexpr const char* kHardwareName = "portable";
#endif

bool use_hardware(DigestCode code) {
  static const bool present = hardware_present();
  return code == DigestCode::kFastest && present;
}

void digest_strides(DigestCode code, Digest128& lanes, const unsigned char* at, size_t strides) {
  use_hardware(code) ? Hardware::lanes(lanes, at, strides) : Portable::lanes(lanes, at, strides);
}

constexpr size_t kStreamedBytes = 1 << 10;  // below, what is copied is likely read soon
constexpr size_t kCachedBytes = 64 << 10;   // copied and then digested in pieces of this size

bool copies_past_the_caches(DigestCode code) {
#if defined(__x86_64__)
  static const bool present = __builtin_cpu_supports("avx");
  return present && use_hardware(code);
#else
  static_cast<void>(code);
  return false;
#endif
}

}  // namespace

uint32_t crc32c(const void* data, size_t bytes, uint32_t before, DigestCode code) {
  const auto* at = static_cast<const unsigned char*>(data);
  return ~(use_hardware(code) ? Hardware::stream(~before, at, bytes)
                              : Portable::stream(~before, at, bytes));
}

Digester::Digester(DigestCode code) : code_(code) { lanes_.fill(0xFFFFFFFF); }

// Completes a stride that was begun; returns how many bytes that took.
size_t Digester::fill_carry(const unsigned char* at, size_t bytes) {
  if (carried_ == 0) return 0;
  const size_t taken = std::min(kStride - carried_, bytes);
  std::memcpy(carry_.data() + carried_, at, taken);
  carried_ += taken;
  if (carried_ < kStride) return taken;
  digest_strides(code_, lanes_, carry_.data(), 1);
  carried_ = 0;
  return taken;
}

void Digester::update(const void* data, size_t bytes) {
  if (bytes == 0) return;
  const auto* at = static_cast<const unsigned char*>(data);
  total_bytes_ += bytes;
  const size_t taken = fill_carry(at, bytes);
  at += taken;
  bytes -= taken;
  if (bytes == 0) return;
  digest_strides(code_, lanes_, at, bytes / kStride);
  carried_ = bytes % kStride;
  if (carried_ > 0) std::memcpy(carry_.data(), at + (bytes - carried_), carried_);
}

void Digester::copy(void* to, const void* from, size_t bytes) {
  auto* into = static_cast<unsigned char*>(to);
  const auto* at = static_cast<const unsigned char*>(from);
#if defined(__x86_64__)
  if (bytes >= kStreamedBytes && copies_past_the_caches(code_)) {
    const size_t taken = fill_carry(at, bytes);
    std::memcpy(into, at, taken);
    const size_t strides = (bytes - taken) / kStride;
    Hardware::copy(lanes_, into + taken, at + taken, strides);
    const size_t done = taken + strides * kStride;
    total_bytes_ += done;
    into += done;
    at += done;
    bytes -= done;
  }
#endif
  while (bytes > 0) {
    const size_t piece = std::min(bytes, kCachedBytes);
    std::memcpy(into, at, piece);
    update(into, piece);
    into += piece;
    at += piece;
    bytes -= piece;
  }
}

Digest128 Digester::finish() const {
  Digest128 lanes = lanes_;
  if (carried_ > 0) {
    std::array<unsigned char, kStride> last{};
    std::memcpy(last.data(), carry_.data(), carried_);
    digest_strides(code_, lanes, last.data(), 1);
  }
  std::array<unsigned char, kStride> length{};
  for (size_t i = 0; i < kStride; ++i) {
    length[i] = static_cast<unsigned char>(total_bytes_ >> (8 * (i % 8)));
  }
  digest_strides(code_, lanes, length.data(), 1);
  for (uint32_t& lane : lanes) lane = ~lane;
  return lanes;
}

Digest128 digest128(const void* data, size_t bytes, DigestCode code) {
  Digester digester(code);
  digester.update(data, bytes);
  return digester.finish();
}

const char* digest_code_name() {
  return use_hardware(DigestCode::kFastest) ? kHardwareName : "portable";
}

}  // namespace hpcore
