// Purpose: condition_variable::wait without the symbol that libstdc++ 12 gave a new version
// (GLIBCXX_3.4.30): a wheel that holds it is no manylinux_2_34, nor would it load beside an older
// libstdc++. Threads: as the condition variable.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>

namespace hpcore::torch_binding {

// Until it is rung, or now and then for no reason.
inline void steady_wait(std::condition_variable& rung, std::unique_lock<std::mutex>& lock) {
  rung.wait_for(lock, std::chrono::hours(1));
}

template <typename Done>
void steady_wait(std::condition_variable& rung, std::unique_lock<std::mutex>& lock, Done done) {
  while (!done()) steady_wait(rung, lock);
}

}  // namespace hpcore::torch_binding
