// Purpose: until when a call may block, and what it does meanwhile.
// Threads: plain values. `poll` runs on the calling thread.
#pragma once

#include <functional>

#include "base/futex.hpp"
#include "base/status.hpp"

namespace hpcore::collective {

struct Limits {
  TimePoint deadline = TimePoint::max();
  // Called about every 50 ms while the call sleeps; a Status that is not ok ends the call with it.
  // Python's binding looks for signals here.
  const std::function<Status()>* poll = nullptr;
};

}  // namespace hpcore::collective
