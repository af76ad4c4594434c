#include "collective/core_spread.hpp"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>

namespace hpcore::collective {
namespace {

// Ticks that each core was idle, proc(5); empty where that cannot be read.
std::vector<uint64_t> idle_ticks() {
  std::vector<uint64_t> ticks;
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen("/proc/stat", "re"),
                                                             &std::fclose);
  if (!file) return ticks;
  char line[512];
  while (std::fgets(line, sizeof(line), file.get()) != nullptr) {
    unsigned core = 0;
    unsigned long long user = 0, nice = 0, system = 0, idle = 0, iowait = 0;
    if (std::sscanf(line, "cpu%u %llu %llu %llu %llu %llu", &core, &user, &nice, &system, &idle,
                    &iowait) != 6) {
      continue;
    }
    if (ticks.size() <= core) ticks.resize(core + 1);
    ticks[core] = idle + iowait;
  }
  return ticks;
}

// Whether there are no more runnable threads than cores: then, where two share one, another is
// idle.
bool some_core_idle() {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen("/proc/loadavg", "re"),
                                                             &std::fclose);
  unsigned runnable = 0;
  return file && std::fscanf(file.get(), "%*f %*f %*f %u/", &runnable) == 1 &&
         runnable <= static_cast<unsigned long>(sysconf(_SC_NPROCESSORS_ONLN));
}

}  // namespace

uint32_t current_core() {
  const int core = sched_getcpu();
  return core < 0 ? 0 : static_cast<uint32_t>(core) + 1;
}

void CoreSpread::look(bool shared, uint32_t core, const std::vector<uint32_t>& taken) {
  if (looking_.test_and_set(std::memory_order_acquire)) return;
  const TimePoint now = Clock::now();
  if (!shared || core == 0) {
    since_known_.store(false, std::memory_order_relaxed);
  } else if (!since_known_.load(std::memory_order_relaxed) || now - since_ > kStale) {
    since_ = now;
    idle_before_ = idle_ticks();
    since_known_.store(some_core_idle(), std::memory_order_relaxed);
  } else if (now - since_ >= kPatience) {
    if (some_core_idle()) {
      move_from(core, taken, std::chrono::duration<double>(now - since_).count());
    }
    since_known_.store(false, std::memory_order_relaxed);
  }
  looking_.clear(std::memory_order_release);
}

void CoreSpread::move_from(uint32_t core, const std::vector<uint32_t>& taken, double elapsed_s) {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0) return;
  const std::vector<uint64_t> idle_now = idle_ticks();
  // Whole ticks, of 10 ms as a rule, may be counted one too few.
  const auto ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
  const double enough = std::max(1.0, std::floor(kIdleShare * elapsed_s * ticks));
  const size_t known = std::min(idle_now.size(), idle_before_.size());
  for (size_t other = 0; other < known; ++other) {
    const auto number = static_cast<uint32_t>(other) + 1;
    if (number == core || !CPU_ISSET(other, &allowed)) continue;
    if (std::find(taken.begin(), taken.end(), number) != taken.end()) continue;
    if (static_cast<double>(idle_now[other] - idle_before_[other]) < enough) continue;
    cpu_set_t only;
    CPU_ZERO(&only);
    CPU_SET(other, &only);
    if (sched_setaffinity(0, sizeof(only), &only) == 0) {
      (void)sched_setaffinity(0, sizeof(allowed), &allowed);
    }
    return;
  }
}

}  // namespace hpcore::collective
