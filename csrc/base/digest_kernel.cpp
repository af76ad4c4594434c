#include "base/digest_kernel.hpp"

#include <bit>

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

// Slicing by eight: the portable form of one crc32 instruction on 8 bytes.
uint32_t portable_word(uint32_t crc, uint64_t word) {
  if constexpr (std::endian::native == std::endian::big) word = __builtin_bswap64(word);
  word ^= crc;
  uint32_t out = 0;
  for (size_t i = 0; i < 8; ++i) out ^= kTables[7 - i][(word >> (8 * i)) & 0xFF];
  return out;
}

void portable_lanes(Digest128& lanes, const unsigned char* at, size_t strides) {
  for (; strides > 0; --strides, at += 32) {
    for (size_t lane = 0; lane < 4; ++lane) {
      lanes[lane] = portable_word(lanes[lane], load_digest_word(at + 8 * lane));
    }
  }
}

uint32_t portable_stream(uint32_t crc, const unsigned char* at, size_t bytes) {
  for (; bytes >= 8; bytes -= 8, at += 8) crc = portable_word(crc, load_digest_word(at));
  for (; bytes > 0; --bytes, ++at) crc = (crc >> 8) ^ kTables[0][(crc ^ *at) & 0xFF];
  return crc;
}

}  // namespace

#if !defined(__x86_64__) && !defined(__aarch64__)
std::vector<DigestKernel> hardware_digest_kernels() { return {}; }
#endif

const std::vector<DigestKernel>& digest_kernels() {
  static const std::vector<DigestKernel> kernels = [] {
    std::vector<DigestKernel> all = hardware_digest_kernels();
    all.push_back({"portable", portable_lanes, portable_stream, nullptr});
    return all;
  }();
  return kernels;
}

const DigestKernel* digest_kernel(const std::string& name) {
  for (const DigestKernel& kernel : digest_kernels()) {
    if (kernel.name == name) return &kernel;
  }
  return nullptr;
}

}  // namespace hpcore
