// Purpose: runs one function on several threads, the caller's among them, and waits for all. New
// threads take no signals (those belong to the script's main thread). Where no thread can be
// started, the caller does the work alone.
// Threads: one call, one caller.
// Ownership: all threads have ended on return.
#pragma once

#include <signal.h>

#include <system_error>
#include <thread>
#include <vector>

namespace hpcore::state {

template <typename Function>
void run_on_threads(unsigned threads, const Function& function) {
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  std::vector<std::thread> helpers;
  try {
    for (unsigned i = 1; i < threads; ++i) helpers.emplace_back(function);
  } catch (const std::system_error&) {
    // Fewer threads, same work: each takes chunks from a shared counter.
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  function();
  for (std::thread& helper : helpers) helper.join();
}

}  // namespace hpcore::state
