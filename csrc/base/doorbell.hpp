// Purpose: an eventcount in shared memory: "something changed, look again". One doorbell serves all
// threads of one worker; conditions live elsewhere. Ringing costs one load when nobody sleeps.
// Threads: thread-safe, across processes. Ownership: a view of 64 bytes of shared memory,
// zero-initialised. A process that dies while sleeping leaves `sleepers` too high: then a ring
// makes one needless system call.
#pragma once

#include <climits>

#include "base/futex.hpp"

namespace hpcore {

struct alignas(64) Doorbell {
  std::atomic<uint32_t> seq{0};
  std::atomic<uint32_t> sleepers{0};

  void ring() {
    std::atomic_thread_fence(std::memory_order_seq_cst);
    if (sleepers.load(std::memory_order_relaxed) == 0) return;
    seq.fetch_add(1, std::memory_order_seq_cst);
    futex_wake(seq, INT_MAX);
  }

  // Waits until condition() holds; false when the deadline passed first. Spins `spins` times (with
  // a pause), then sleeps.
  template <typename Condition>
  bool wait(Condition condition, TimePoint deadline, int spins = 0) {
    for (int i = 0; i < spins; ++i) {
      if (condition()) return true;
      pause();
    }
    for (;;) {
      sleepers.fetch_add(1, std::memory_order_seq_cst);
      const uint32_t before = seq.load(std::memory_order_seq_cst);
      if (condition()) {
        sleepers.fetch_sub(1, std::memory_order_relaxed);
        return true;
      }
      const WaitResult result = futex_wait(seq, before, deadline);
      sleepers.fetch_sub(1, std::memory_order_relaxed);
      if (condition()) return true;
      if (result == WaitResult::kTimeout) return false;
    }
  }

 private:
  static void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
  }
};
static_assert(sizeof(Doorbell) == 64);

}  // namespace hpcore
