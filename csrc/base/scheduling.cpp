#include "base/scheduling.hpp"

#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>

namespace hpcore {
namespace {

struct SchedulingAttributes {  // struct sched_attr of sched_setattr(2), first version
  uint32_t size = sizeof(SchedulingAttributes);
  uint32_t policy = 0;  // SCHED_OTHER
  uint64_t flags = 0;
  int32_t nice = 0;
  uint32_t priority = 0;
  uint64_t runtime_ns = 100'000;  // the kernel's smallest
  uint64_t deadline_ns = 0;
  uint64_t period_ns = 0;
};

}  // namespace

bool prefer_short_slice() {
  SchedulingAttributes attributes;
  attributes.nice = getpriority(PRIO_PROCESS, 0);  // of this thread: keep it
  return syscall(SYS_sched_setattr, 0, &attributes, 0) == 0;
}

}  // namespace hpcore
