#include "base/futex.hpp"

#include <cerrno>
#include <climits>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

namespace hpcore {

WaitResult futex_wait(const std::atomic<uint32_t>& word, uint32_t expected, TimePoint deadline) {
  const auto until = deadline.time_since_epoch();
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(until);
  timespec at{};
  at.tv_sec = seconds.count();
  at.tv_nsec = std::chrono::duration_cast<std::chrono::nanoseconds>(until - seconds).count();
  // FUTEX_WAIT_BITSET takes an absolute CLOCK_MONOTONIC time.
  const bool forever = deadline == TimePoint::max();
  const long rc = syscall(SYS_futex, reinterpret_cast<const uint32_t*>(&word), FUTEX_WAIT_BITSET, expected,
                          forever ? nullptr : &at, nullptr, FUTEX_BITSET_MATCH_ANY);
  if (rc == 0) return WaitResult::kWoken;
  if (errno == ETIMEDOUT) return WaitResult::kTimeout;
  return errno == EAGAIN ? WaitResult::kChanged : WaitResult::kWoken;
}

int futex_wake(const std::atomic<uint32_t>& word, int count) {
  return static_cast<int>(
      syscall(SYS_futex, reinterpret_cast<const uint32_t*>(&word), FUTEX_WAKE, count, nullptr, nullptr, 0));
}

}  // namespace hpcore
