#include "base/futex.hpp"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <climits>

namespace hpcore {
namespace {

constexpr long kFutexWaitv = 449;  // SYS_futex_waitv, the same number on all architectures

struct Waitv {  // the kernel's struct futex_waitv; headers before 5.16 have none
  uint64_t value;
  uint64_t address;
  uint32_t flags;
  uint32_t reserved;
};

timespec to_timespec(TimePoint deadline) {
  const auto until = deadline.time_since_epoch();
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(until);
  timespec at{};
  at.tv_sec = seconds.count();
  at.tv_nsec = std::chrono::duration_cast<std::chrono::nanoseconds>(until - seconds).count();
  return at;
}

}  // namespace

WaitResult futex_wait(const std::atomic<uint32_t>& word, uint32_t expected, TimePoint deadline) {
  const timespec at = to_timespec(deadline);
  // FUTEX_WAIT_BITSET takes an absolute CLOCK_MONOTONIC time.
  const bool forever = deadline == TimePoint::max();
  const long rc = syscall(SYS_futex, reinterpret_cast<const uint32_t*>(&word), FUTEX_WAIT_BITSET,
                          expected, forever ? nullptr : &at, nullptr, FUTEX_BITSET_MATCH_ANY);
  if (rc == 0) return WaitResult::kWoken;
  if (errno == ETIMEDOUT) return WaitResult::kTimeout;
  return errno == EAGAIN ? WaitResult::kChanged : WaitResult::kWoken;
}

WaitResult futex_wait_either(const std::atomic<uint32_t>& first, uint32_t first_expected,
                             const std::atomic<uint32_t>& second, uint32_t second_expected,
                             TimePoint deadline) {
  constexpr uint32_t kFutex32 = 2;  // 32 bits wide, shared between processes
  Waitv words[2] = {{first_expected, reinterpret_cast<uint64_t>(&first), kFutex32, 0},
                    {second_expected, reinterpret_cast<uint64_t>(&second), kFutex32, 0}};
  const timespec at = to_timespec(deadline);
  const bool forever = deadline == TimePoint::max();
  const long rc = syscall(kFutexWaitv, words, 2, 0, forever ? nullptr : &at, CLOCK_MONOTONIC);
  if (rc >= 0) return WaitResult::kWoken;
  if (errno == ENOSYS || errno == EPERM) return futex_wait(first, first_expected, deadline);
  if (errno == ETIMEDOUT) return WaitResult::kTimeout;
  return errno == EAGAIN ? WaitResult::kChanged : WaitResult::kWoken;
}

int futex_wake(const std::atomic<uint32_t>& word, int count) {
  return static_cast<int>(syscall(SYS_futex, reinterpret_cast<const uint32_t*>(&word), FUTEX_WAKE,
                                  count, nullptr, nullptr, 0));
}

}  // namespace hpcore
