// Purpose: copies unsigned numbers into wider ones (uint16 tokens into int64, say), at the speed of
// memory: AVX-512 or AVX2 where the CPU has them, else what the compiler makes of a loop.
// Threads: pure functions; the choice of code is made once.
// Ownership: the caller's memory; ranges must not overlap.
#pragma once

#include <cstddef>
#include <cstdint>

namespace hpcore::dataset {

// Fetches what will be read soon into the caches: at most 4 KiB, the CPU follows from there.
inline void fetch_ahead(const void* at, size_t bytes) {
  const auto* from = static_cast<const unsigned char*>(at);
  const size_t end = bytes < 4096 ? bytes : 4096;
  for (size_t i = 0; i < end; i += 64) __builtin_prefetch(from + i);
}

using Widen = void (*)(const void* from, size_t count, void* to);

// From numbers of `from_bytes` to numbers of `to_bytes` (each 1, 2, 4 or 8; not narrower): zero
// extended. nullptr for other sizes.
Widen widen_code(unsigned from_bytes, unsigned to_bytes);

// "avx512", "avx2" or "portable"
const char* widen_code_name();

}  // namespace hpcore::dataset
