// Purpose: starts a thread of this room: named, deaf to signals (those belong to Python's main
// thread). Unlike base's service threads it may compute for long, so it gets no priority.
// Threads: thread-safe. Ownership: the caller's std::thread.
#pragma once

#include <pthread.h>

#include <csignal>
#include <system_error>
#include <thread>

namespace hpcore::torch_binding {

// False where the system has no thread left; then `thread` stays empty.
template <typename Body>
bool start_quiet_thread(const char* name, std::thread& thread, Body body) {
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  bool started = true;
  try {
    thread = std::thread([name, body = std::move(body)] {
      pthread_setname_np(pthread_self(), name);
      body();
    });
  } catch (const std::system_error&) {
    started = false;
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return started;
}

}  // namespace hpcore::torch_binding
