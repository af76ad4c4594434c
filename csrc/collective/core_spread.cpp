#include "collective/core_spread.hpp"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>

namespace hpcore::collective {
namespace {

using File = std::unique_ptr<std::FILE, int (*)(std::FILE*)>;

class RealCores final : public Cores {
 public:
  [[nodiscard]] TimePoint now() const override { return Clock::now(); }
  [[nodiscard]] unsigned runnable() const override {
    const File file(std::fopen("/proc/loadavg", "re"), &std::fclose);
    unsigned count = 0;
    return file && std::fscanf(file.get(), "%*f %*f %*f %u/", &count) == 1 ? count : 0;
  }
  [[nodiscard]] unsigned online() const override {
    return static_cast<unsigned>(std::max(1L, sysconf(_SC_NPROCESSORS_ONLN)));
  }
  // proc(5); empty where that cannot be read.
  [[nodiscard]] std::vector<double> idle_s() const override {
    std::vector<double> found;
    const File file(std::fopen("/proc/stat", "re"), &std::fclose);
    if (!file) return found;
    const auto ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
    char line[512];
    while (std::fgets(line, sizeof(line), file.get()) != nullptr) {
      unsigned core = 0;
      unsigned long long user = 0, nice = 0, system = 0, idle = 0, iowait = 0;
      if (std::sscanf(line, "cpu%u %llu %llu %llu %llu %llu", &core, &user, &nice, &system, &idle,
                      &iowait) != 6) {
        continue;
      }
      if (found.size() <= core) found.resize(core + 1);
      found[core] = static_cast<double>(idle + iowait) / ticks;
    }
    return found;
  }
  [[nodiscard]] std::vector<uint32_t> allowed() const override {
    std::vector<uint32_t> found;
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof(set), &set) != 0) return found;
    for (uint32_t core = 0; core < CPU_SETSIZE; ++core) {
      if (CPU_ISSET(core, &set)) found.push_back(core + 1);
    }
    return found;
  }
  uint32_t move_to(uint32_t core) override {
    cpu_set_t allowed, only;
    CPU_ZERO(&allowed);
    CPU_ZERO(&only);
    if (core == 0 || sched_getaffinity(0, sizeof(allowed), &allowed) != 0) return 0;
    if (!CPU_ISSET(core - 1, &allowed)) return 0;
    CPU_SET(core - 1, &only);
    if (sched_setaffinity(0, sizeof(only), &only) != 0) return 0;
    const uint32_t there = current_core();
    (void)sched_setaffinity(0, sizeof(allowed), &allowed);
    return there;
  }
};

}  // namespace

uint32_t current_core() {
  const int core = sched_getcpu();
  return core < 0 ? 0 : static_cast<uint32_t>(core) + 1;
}

Cores& real_cores() {
  static RealCores cores;
  return cores;
}

void CoreSpread::begin(TimePoint now) {
  since_ = now;
  asked_alone_ = false;
  idle_before_s_ = cores_.idle_s();
  watching_.store(true, std::memory_order_relaxed);
}

void CoreSpread::look(bool shared, uint32_t core, const std::vector<uint32_t>& taken) {
  if (looking_.test_and_set(std::memory_order_acquire)) return;
  const TimePoint now = cores_.now();
  const bool went_on = watching_.load(std::memory_order_relaxed) && now - last_ <= kStale;
  last_ = now;
  if (!shared || core == 0) {
    watching_.store(false, std::memory_order_relaxed);
  } else if (!went_on) {
    begin(now);
  } else if (now - since_ >= kPatience) {
    move_to_idle(core, taken, std::chrono::duration<double>(now - since_).count());
    watching_.store(false, std::memory_order_relaxed);
  } else if (now - since_ >= kPatienceAlone && !asked_alone_) {
    asked_alone_ = true;
    if (move_alone(core, taken)) watching_.store(false, std::memory_order_relaxed);
  }
  looking_.clear(std::memory_order_release);
}

std::vector<uint32_t> CoreSpread::free_cores(uint32_t core,
                                             const std::vector<uint32_t>& taken) const {
  std::vector<uint32_t> found = cores_.allowed();
  std::erase_if(found, [&](uint32_t other) {
    return other == core || std::find(taken.begin(), taken.end(), other) != taken.end();
  });
  return found;
}

bool CoreSpread::move_alone(uint32_t core, const std::vector<uint32_t>& taken) {
  const unsigned runnable = cores_.runnable();
  const auto ranks = static_cast<unsigned>(taken.size()) + 1;
  if (runnable == 0 || runnable > ranks || runnable > cores_.online()) return false;
  const std::vector<uint32_t> free = free_cores(core, taken);
  return !free.empty() && cores_.move_to(free.front()) != 0;
}

void CoreSpread::move_to_idle(uint32_t core, const std::vector<uint32_t>& taken, double elapsed_s) {
  // No more of them than cores: then, where two share one, another is idle.
  const unsigned runnable = cores_.runnable();
  if (runnable == 0 || runnable > cores_.online()) return;
  const std::vector<double> idle_now_s = cores_.idle_s();
  // Whole ticks: one too few may be counted.
  constexpr double kRounding = 1e-6;
  const double enough_s =
      std::max(1.0, std::floor(kIdleShare * elapsed_s / kTickS)) * kTickS - kRounding;
  for (const uint32_t other : free_cores(core, taken)) {
    const size_t at = other - 1;
    if (at >= std::min(idle_now_s.size(), idle_before_s_.size())) continue;
    if (idle_now_s[at] - idle_before_s_[at] < enough_s) continue;
    (void)cores_.move_to(other);
    return;
  }
}

}  // namespace hpcore::collective
