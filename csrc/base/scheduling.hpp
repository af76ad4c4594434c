// Purpose: make the calling thread run soon after it is woken, also when all cores are busy. For
// threads that sleep nearly always and do little. Threads: acts on the calling thread only; what it
// forks or starts is scheduled as usual again. Figures: docs/decisions.md, roster.
#pragma once

namespace hpcore {

enum class Wakeups {
  kRealtime,    // SCHED_RR, lowest priority: needs CAP_SYS_NICE or RLIMIT_RTPRIO
  kShortSlice,  // sched_setattr with a slice of 100 us: Linux 6.12 on, no privilege needed
  kUsual,       // neither is to be had, or somebody chose a policy for this thread before
};

// The best that is permitted; `realtime` false leaves the first out.
Wakeups prefer_quick_wakeups(bool realtime = true);

}  // namespace hpcore
