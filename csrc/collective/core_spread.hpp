// Purpose: moves the calling thread off a core that it shares with a rank that it waits for, while
// another core has nothing to do. Linux may leave two ranks that take turns on one core for
// hundreds of milliseconds: each looks busy only while the other waits, and both are "cache hot".
// `hpcore bench collectives` then shows all_reduce of 1 MiB at some 100 us instead of 40 (two
// ranks, two cores).
// Threads: thread-safe; of several that wait one looks. Ownership: borrows the Cores. The thread's
// affinity is as before when a call returns. Lifecycle: plain object.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "base/futex.hpp"

namespace hpcore::collective {

// The core that the calling thread runs on, plus 1; 0 where that is not known.
uint32_t current_core();

// What is known of the machine's cores, and the move. Cores are numbered as in current_core().
class Cores {
 public:
  virtual ~Cores() = default;
  [[nodiscard]] virtual TimePoint now() const = 0;
  // Threads that run or want to run now; 0 where that is not known.
  [[nodiscard]] virtual unsigned runnable() const = 0;
  [[nodiscard]] virtual unsigned online() const = 0;
  // Seconds that each core was idle since some moment, in steps of a tick; by number less 1.
  [[nodiscard]] virtual std::vector<double> idle_s() const = 0;
  // Where the calling thread may run.
  [[nodiscard]] virtual std::vector<uint32_t> allowed() const = 0;
  // Puts the calling thread there; where it may run is as before afterwards. Returns where it was
  // then, 0 if that could not be done.
  virtual uint32_t move_to(uint32_t core) = 0;
};
Cores& real_cores();

class CoreSpread {
 public:
  explicit CoreSpread(Cores& cores = real_cores()) : cores_(cores) {}

  // Call it while waiting. `shared`: a rank that goes first is on core `core` (of current_core())
  // too; `taken` are the cores of the other ranks. Moves the thread once this has been so for
  //   kPatienceAlone, if nobody but the ranks wants to run: any core that none of them is on;
  //   kPatience, if no more threads want to run than there are cores: one idle all the while.
  void look(bool shared, uint32_t core, const std::vector<uint32_t>& taken);
  // Whether look() has something to do: cheap, for the usual case.
  [[nodiscard]] bool idle(bool shared) const {
    return !shared && !watching_.load(std::memory_order_relaxed);
  }

  static constexpr std::chrono::microseconds kPatienceAlone{500};
  static constexpr std::chrono::milliseconds kPatience{12};  // a little more than a tick
  static constexpr std::chrono::milliseconds kStale{50};     // nobody waited meanwhile
  static constexpr double kIdleShare = 0.7;
  static constexpr double kTickS = 0.01;

 private:
  void begin(TimePoint now);
  bool move_alone(uint32_t core, const std::vector<uint32_t>& taken);
  void move_to_idle(uint32_t core, const std::vector<uint32_t>& taken, double elapsed_s);
  [[nodiscard]] std::vector<uint32_t> free_cores(uint32_t core,
                                                 const std::vector<uint32_t>& taken) const;

  Cores& cores_;
  std::atomic<bool> watching_{false};
  std::atomic_flag looking_ = ATOMIC_FLAG_INIT;  // guards the rest
  TimePoint since_{};
  TimePoint last_{};
  bool asked_alone_ = false;
  std::vector<double> idle_before_s_;  // by core
};

}  // namespace hpcore::collective
