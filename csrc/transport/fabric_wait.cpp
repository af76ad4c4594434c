#include "transport/fabric_wait.hpp"

#include <poll.h>
#include <sched.h>

#include <algorithm>

namespace hpcore::transport {
namespace {

// Polling: yields for some tens of microseconds, then sleeps from 20 us up to 1 ms. An idle source
// costs a thousand wake-ups a second, a busy one never gets there.
constexpr unsigned kYields = 64;
constexpr unsigned kShortestSleepUs = 20;
constexpr unsigned kLongestSleepUs = 1000;

}  // namespace

FabricWait::FabricWait(const std::vector<FabricPort>& ports, int wake_fd)
    : ports_(ports),
      wake_fd_(wake_fd),
      sleeps_(std::all_of(ports.begin(), ports.end(),
                          [](const FabricPort& port) { return port.wait_fd() >= 0; })) {}

void FabricWait::wait(std::chrono::milliseconds limit) {
  ++idle_rounds_;
  if (sleeps_) {
    std::vector<pollfd> fds;
    for (const FabricPort& port : ports_) {
      if (!port.may_sleep()) return;
      fds.push_back({port.wait_fd(), POLLIN, 0});
    }
    if (wake_fd_ >= 0) fds.push_back({wake_fd_, POLLIN, 0});
    poll(fds.data(), fds.size(), static_cast<int>(limit.count()));
    return;
  }
  if (idle_rounds_ <= kYields) {
    sched_yield();
    return;
  }
  const unsigned doubled = std::min(idle_rounds_ - kYields, 6U);
  const unsigned sleep_us = std::min(kShortestSleepUs << doubled, kLongestSleepUs);
  const timespec span{0, static_cast<long>(sleep_us) * 1000};
  pollfd wake{wake_fd_, POLLIN, 0};
  ppoll(&wake, wake_fd_ >= 0 ? 1 : 0, &span, nullptr);
}

}  // namespace hpcore::transport
