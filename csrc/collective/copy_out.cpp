#include "collective/copy_out.hpp"

#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace hpcore::collective {
namespace {

size_t last_level_bytes() {
  const long told = sysconf(_SC_LEVEL3_CACHE_SIZE);
  return told > 0 ? static_cast<size_t>(told) : size_t{32} << 20;
}

}  // namespace

bool exceeds_cache(size_t bytes, int ranks) {
  static const size_t cache_bytes = last_level_bytes();
  return bytes * static_cast<size_t>(ranks) > cache_bytes;
}

void copy_out(void* to, const void* from, size_t bytes, bool past_cache) {
#if defined(__SSE2__)
  constexpr size_t kLine = 64;
  constexpr size_t kWorthwhile = 4096;
  if (past_cache && bytes >= kWorthwhile) {
    auto* target = static_cast<std::byte*>(to);
    const auto* source = static_cast<const std::byte*>(from);
    const size_t head = (kLine - reinterpret_cast<uintptr_t>(target) % kLine) % kLine;
    std::memcpy(target, source, head);
    size_t at = head;
    for (; at + kLine <= bytes; at += kLine) {
      const auto* in = reinterpret_cast<const __m128i*>(source + at);
      auto* out = reinterpret_cast<__m128i*>(target + at);
      const __m128i a = _mm_loadu_si128(in);
      const __m128i b = _mm_loadu_si128(in + 1);
      const __m128i c = _mm_loadu_si128(in + 2);
      const __m128i d = _mm_loadu_si128(in + 3);
      _mm_stream_si128(out, a);
      _mm_stream_si128(out + 1, b);
      _mm_stream_si128(out + 2, c);
      _mm_stream_si128(out + 3, d);
    }
    std::memcpy(target + at, source + at, bytes - at);
    _mm_sfence();
    return;
  }
#endif
  if (bytes != 0) std::memcpy(to, from, bytes);
}

}  // namespace hpcore::collective
