// Purpose: sleeping on a 32-bit word of shared memory. Shared (not private) futexes: words live in
// memfd mappings. Threads: thread-safe. A wait may return early for no reason: the caller checks
// its condition again.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

namespace hpcore {

using Clock =
    std::chrono::steady_clock;  // CLOCK_MONOTONIC: comparable between processes of one node
using TimePoint = Clock::time_point;

enum class WaitResult { kWoken, kChanged, kTimeout };

// Sleeps while word == expected, until woken or until the deadline.
WaitResult futex_wait(const std::atomic<uint32_t>& word, uint32_t expected, TimePoint deadline);
// Sleeps while both words hold what is expected. Kernels before 5.16 cannot: there it sleeps on the
// first word only.
WaitResult futex_wait_either(const std::atomic<uint32_t>& first, uint32_t first_expected,
                             const std::atomic<uint32_t>& second, uint32_t second_expected,
                             TimePoint deadline);
// Wakes up to `count` sleepers; returns how many.
int futex_wake(const std::atomic<uint32_t>& word, int count);

inline uint64_t monotonic_ns() {
  return static_cast<uint64_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now().time_since_epoch())
          .count());
}

}  // namespace hpcore
