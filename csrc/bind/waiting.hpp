// Purpose: native waits that Python's signals can cut short. Call with the GIL held.
#pragma once

#include <pybind11/pybind11.h>

#include <algorithm>

#include "base/futex.hpp"

namespace hpcore::bind {

inline TimePoint deadline_in(double timeout_s) {
  constexpr double kForever = 1e9;
  if (timeout_s >= kForever) return TimePoint::max();
  return Clock::now() +
         std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(timeout_s));
}

// Calls attempt(until) without the GIL, in slices of at most 100 ms, until it returns true or the
// timeout passed; lets Python handle its signals between slices. Returns what the last attempt
// returned.
template <typename Attempt>
bool wait_in_slices(double timeout_s, Attempt attempt) {
  const TimePoint deadline = deadline_in(timeout_s);
  for (;;) {
    const TimePoint until = std::min(deadline, Clock::now() + std::chrono::milliseconds(100));
    bool done = false;
    {
      const pybind11::gil_scoped_release release;
      done = attempt(until);
    }
    if (done) return true;
    if (PyErr_CheckSignals() != 0) throw pybind11::error_already_set();
    if (Clock::now() >= deadline) return false;
  }
}

}  // namespace hpcore::bind
