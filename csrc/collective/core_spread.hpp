// Purpose: moves the calling thread off a core that it shares with a rank that it waits for, while
// another core has nothing to do. Linux may leave two ranks that take turns on one core for
// hundreds of milliseconds: each looks busy only while the other waits, and both are "cache hot".
// `hpcore bench collectives` then shows all_reduce of 1 MiB at some 100 us instead of 40 (two
// ranks, two cores).
// Threads: thread-safe; of several that wait one looks. Ownership: none. The thread's affinity is
// as before when a call returns. Lifecycle: plain object.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "base/futex.hpp"

namespace hpcore::collective {

// The core that the calling thread runs on, plus 1; 0 where that is not known.
uint32_t current_core();

class CoreSpread {
 public:
  // Call it while waiting. `shared`: a rank that goes first is on core `core` (of current_core())
  // too; `taken` are the cores of the other ranks. Moves the thread once this has been so for
  // kPatience, to a core that was idle all the while.
  void look(bool shared, uint32_t core, const std::vector<uint32_t>& taken);
  // Whether look() has something to do: cheap, for the usual case.
  [[nodiscard]] bool idle(bool shared) const {
    return !shared && !since_known_.load(std::memory_order_relaxed);
  }

 private:
  static constexpr std::chrono::milliseconds kPatience{12};  // a little more than a tick
  static constexpr std::chrono::milliseconds kStale{50};     // nobody waited meanwhile
  static constexpr double kIdleShare = 0.7;

  void move_from(uint32_t core, const std::vector<uint32_t>& taken, double elapsed_s);

  std::atomic<bool> since_known_{false};
  std::atomic_flag looking_ = ATOMIC_FLAG_INIT;  // guards the rest
  TimePoint since_{};
  std::vector<uint64_t> idle_before_;  // ticks, by core
};

}  // namespace hpcore::collective
