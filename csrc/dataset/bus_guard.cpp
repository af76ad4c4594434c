#include "dataset/bus_guard.hpp"

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <mutex>

namespace hpcore::dataset {
namespace {

// initial-exec: the handler may not allocate.
__attribute__((tls_model("initial-exec"))) thread_local BusGuard* innermost = nullptr;

// What the kernel keeps one of per process is kept here once, too.
std::mutex install_mutex;
struct sigaction previous{};
std::atomic<bool> passed_on{false};

// The old disposition comes back and the access happens again, under it. If that one gives up in
// turn and puts ours back (faulthandler does), the next time is the default's.
void pass_on(int signal) {
  if (passed_on.exchange(true)) {
    struct sigaction fallback{};
    fallback.sa_handler = SIG_DFL;
    sigaction(signal, &fallback, nullptr);
    return;
  }
  sigaction(signal, &previous, nullptr);
}

void on_bus_error(int signal, siginfo_t* info, void*) {
  if (info->si_code <= 0 || !BusGuard::take(info->si_addr)) {
    pass_on(signal);
    if (info->si_code <= 0) raise(signal);  // was sent, so nothing happens again by itself
  }
}

bool is_ours(const struct sigaction& action) {
  return (action.sa_flags & SA_SIGINFO) != 0 && action.sa_sigaction == &on_bus_error;
}

void install() {
  struct sigaction now{};
  sigaction(SIGBUS, nullptr, &now);
  if (is_ours(now)) return;
  const std::lock_guard lock(install_mutex);
  sigaction(SIGBUS, nullptr, &now);
  if (is_ours(now)) return;
  previous = now;
  passed_on = false;
  struct sigaction ours{};
  ours.sa_sigaction = &on_bus_error;
  ours.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigemptyset(&ours.sa_mask);
  sigaction(SIGBUS, &ours, nullptr);
}

}  // namespace

BusGuard::BusGuard(const unsigned char* begin, uint64_t bytes)
    : begin_(begin), bytes_(bytes), outer_(innermost) {
  install();
  innermost = this;
  std::atomic_signal_fence(std::memory_order_seq_cst);
}

BusGuard::~BusGuard() {
  std::atomic_signal_fence(std::memory_order_seq_cst);
  innermost = outer_;
}

bool BusGuard::take(const void* address) {
  static const uint64_t page_bytes = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  const auto* at = static_cast<const unsigned char*>(address);
  bool taken = false;
  for (BusGuard* guard = innermost; guard != nullptr; guard = guard->outer_) {
    if (at < guard->begin_ || at >= guard->begin_ + guard->bytes_) continue;
    const uint64_t offset = static_cast<uint64_t>(at - guard->begin_) / page_bytes * page_bytes;
    if (!taken) {
      void* page = const_cast<unsigned char*>(guard->begin_ + offset);
      if (mmap(page, page_bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
          MAP_FAILED)
        return false;
      taken = true;
    }
    guard->hit_ = true;  // every guard around: none may trust what it read
    guard->offset_ = offset;
  }
  return taken;
}

}  // namespace hpcore::dataset
