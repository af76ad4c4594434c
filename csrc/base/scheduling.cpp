#include "base/scheduling.hpp"

#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>

namespace hpcore {
namespace {

constexpr uint64_t kResetOnFork = 1;  // SCHED_FLAG_RESET_ON_FORK

struct SchedulingAttributes {  // struct sched_attr of sched_setattr(2), first version
  uint32_t size = sizeof(SchedulingAttributes);
  uint32_t policy = SCHED_OTHER;
  uint64_t flags = kResetOnFork;
  int32_t nice = 0;
  uint32_t priority = 0;
  uint64_t runtime_ns = 0;
  uint64_t deadline_ns = 0;
  uint64_t period_ns = 0;
};

bool set_attributes(const SchedulingAttributes& attributes) {
  return syscall(SYS_sched_setattr, 0, &attributes, 0) == 0;
}

}  // namespace

Wakeups prefer_quick_wakeups(bool realtime) {
  if ((sched_getscheduler(0) & ~SCHED_RESET_ON_FORK) != SCHED_OTHER) return Wakeups::kUsual;
  SchedulingAttributes first_class;
  first_class.policy = SCHED_RR;
  first_class.priority = 1;
  if (realtime && set_attributes(first_class)) return Wakeups::kRealtime;
  SchedulingAttributes short_slice;
  short_slice.nice = getpriority(PRIO_PROCESS, 0);  // of this thread: keep it
  short_slice.runtime_ns = 100'000;                 // the kernel's smallest
  return set_attributes(short_slice) ? Wakeups::kShortSlice : Wakeups::kUsual;
}

}  // namespace hpcore
