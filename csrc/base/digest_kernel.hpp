// Purpose: the inner loops of digest.hpp, one set for each kind of CPU; all give the same bits.
//   portable    tables, eight bytes at a time
//   sse4.2      the CRC-32C instruction of x86, four chains
//   armv8-crc   that of ARMv8
//   vpclmulqdq  carry-less multiplication of 512-bit vectors, with the instruction beside it
// Threads: immutable, thread-safe. Ownership: none, they live as long as the program.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

namespace hpcore {

using Digest128 = std::array<uint32_t, 4>;

struct DigestKernel {
  const char* name;
  // Whole strides of 32 bytes: word i of eight bytes goes to lane i mod 4.
  void (*lanes)(Digest128& lanes, const unsigned char* at, size_t strides);
  // Any number of bytes as one CRC.
  uint32_t (*stream)(uint32_t crc, const unsigned char* at, size_t bytes);
  // As lanes(), and stores what it read to `to`, past the caches. Null: it has none.
  void (*copy)(Digest128& lanes, unsigned char* to, const unsigned char* at, size_t strides);
};

// Those that this CPU can run, the fastest first, the portable one last.
const std::vector<DigestKernel>& digest_kernels();
inline const DigestKernel& fastest_digest_kernel() { return digest_kernels().front(); }
// Null: this CPU has none of that name.
const DigestKernel* digest_kernel(const std::string& name);

// What a file of kernels offers on this CPU, the fastest first.
std::vector<DigestKernel> hardware_digest_kernels();  // digest_x86.cpp, digest_arm.cpp

inline uint64_t load_digest_word(const unsigned char* at) {
  uint64_t word;
  std::memcpy(&word, at, sizeof word);
  return word;
}

}  // namespace hpcore
