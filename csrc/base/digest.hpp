// Purpose: check values. crc32c: one CRC-32C (Castagnoli). Digest128: four CRC-32Cs side by side,
// 8-byte word i of the data goes to lane i mod 4; the CPU computes them in the shadow of each
// other's latency, at the speed of memory. Every lane is closed with the length in bytes, so zero
// padding does not hide a cut.
// What it is worth: a change that touches one lane only within 32 consecutive bits of that lane's
// stream is always seen; other accidental damage is missed with probability 2^-32 if it touches one
// lane, 2^-64 if two, 2^-128 if all four. It is an error-detecting code: linear, without a key. It
// is no defence against somebody who wants a collision.
// The fastest kernel that the CPU can run is chosen at run time (digest_kernel.hpp); all give the
// same value.
// Threads: functions thread-safe; a Digester is one thread.
// Ownership: none.
#pragma once

#include "base/digest_kernel.hpp"

namespace hpcore {

uint32_t crc32c(const void* data, size_t bytes, uint32_t before = 0);

// The digest of a byte stream given in pieces; how it is cut does not matter.
class Digester {
 public:
  explicit Digester(const DigestKernel& kernel = fastest_digest_kernel());
  void update(const void* data, size_t bytes);
  // As update(from, bytes), and copies the bytes to `to` in the same pass, past the caches: as fast
  // as memcpy alone, for memory that nobody reads at once. The ranges must not overlap.
  void copy(void* to, const void* from, size_t bytes);
  [[nodiscard]] Digest128 finish() const;

 private:
  static constexpr size_t kStride = 32;  // one word for each lane
  size_t fill_carry(const unsigned char* at, size_t bytes);
  const DigestKernel* kernel_;
  Digest128 lanes_;
  uint64_t total_bytes_ = 0;
  std::array<unsigned char, kStride> carry_{};
  size_t carried_ = 0;
};

Digest128 digest128(const void* data, size_t bytes,
                    const DigestKernel& kernel = fastest_digest_kernel());

}  // namespace hpcore
