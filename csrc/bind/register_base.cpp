#include "base/futex.hpp"
#include "base/scheduling.hpp"
#include "bind/register.hpp"

namespace hpcore::bind {

namespace {

const char* quick_wakeups(bool realtime) {
  switch (prefer_quick_wakeups(realtime)) {
    case Wakeups::kRealtime:
      return "realtime";
    case Wakeups::kShortSlice:
      return "short slice";
    case Wakeups::kUsual:
      break;
  }
  return "usual";
}

}  // namespace

void register_base(pybind11::module_& module) {
  module.def("monotonic_ns", &monotonic_ns,
             "CLOCK_MONOTONIC in nanoseconds: comparable between processes of one node.");
  module.def("prefer_quick_wakeups", &quick_wakeups, pybind11::arg("realtime") = true,
             "Asks the kernel to run the calling thread soon after it is woken, on busy cores too. "
             "For threads that do little. What it forks is scheduled as usual. Returns what was "
             "granted: 'realtime' (SCHED_RR; needs a privilege), 'short slice' or 'usual'.");
}

}  // namespace hpcore::bind
