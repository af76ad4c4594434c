// Purpose: copies into and out of shared memory that another process may be writing at the same
// time. Each word is a relaxed atomic access: a torn copy is possible and found by the caller
// (sequence numbers, checksums), a data race is not. For up to some hundred KiB; large data goes by
// memcpy under its own protocol. Threads: plain functions. `shared` must be aligned to 8 bytes, and
// its area be a multiple of 8 bytes long.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace hpcore {

inline void copy_to_shared(std::byte* shared, const void* from, size_t size_bytes) {
  const auto* source = static_cast<const std::byte*>(from);
  auto* words = reinterpret_cast<uint64_t*>(shared);
  for (size_t done = 0; done < size_bytes; done += 8) {
    uint64_t word = 0;
    std::memcpy(&word, source + done, size_bytes - done < 8 ? size_bytes - done : 8);
    std::atomic_ref(words[done / 8]).store(word, std::memory_order_relaxed);
  }
}

inline void copy_from_shared(void* to, const std::byte* shared, size_t size_bytes) {
  auto* target = static_cast<std::byte*>(to);
  auto* words = reinterpret_cast<uint64_t*>(const_cast<std::byte*>(shared));
  for (size_t done = 0; done < size_bytes; done += 8) {
    const uint64_t word = std::atomic_ref(words[done / 8]).load(std::memory_order_relaxed);
    std::memcpy(target + done, &word, size_bytes - done < 8 ? size_bytes - done : 8);
  }
}

}  // namespace hpcore
