#include "base/service_thread.hpp"

#include <pthread.h>

#include <csignal>
#include <system_error>

#include "base/scheduling.hpp"

namespace hpcore {

Result<std::thread> start_service_thread(const char* name, std::function<void()> body, bool quick) {
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  Result<std::thread> result = Status();
  try {
    std::thread thread([name, quick, body = std::move(body)] {
      pthread_setname_np(pthread_self(), name);
      if (quick) (void)prefer_quick_wakeups();
      body();
    });
    result = std::move(thread);
  } catch (const std::system_error& error) {
    result = Status::system(std::string("starting thread ") + name, error.code().value());
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return result;
}

}  // namespace hpcore
