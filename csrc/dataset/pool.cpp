#include "dataset/pool.hpp"

#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstdint>
#include <fstream>
#include <memory>

#include "base/service_thread.hpp"

namespace hpcore::dataset {
namespace {

// What these threads read into the page cache serves the ranks on all NUMA nodes alike: its pages
// are dealt to the nodes in turn. Nothing is done where there is one node.
void spread_over_nodes() {
  constexpr int kInterleave = 3;  // MPOL_INTERLEAVE; <numaif.h> would need libnuma
  std::ifstream online("/sys/devices/system/node/online");
  uint64_t mask = 0;
  unsigned first = 0;
  while (online >> first) {
    unsigned last = first;
    if (online.peek() == '-') online.ignore() >> last;
    for (unsigned node = first; node <= last && node < 64; ++node) mask |= uint64_t{1} << node;
    if (online.peek() == ',') online.ignore();
  }
  if (std::popcount(mask) > 1) (void)syscall(SYS_set_mempolicy, kInterleave, &mask, 65);
}

}  // namespace

Pool::Pool(unsigned threads) : threads_wanted_(std::max(1u, threads)), owner_pid_(getpid()) {}

bool Pool::forked() const { return getpid() != owner_pid_; }

Pool::~Pool() {
  if (forked()) {
    (void)state_.release();
    return;
  }
  {
    const std::lock_guard lock(state_->mutex);
    state_->stopping = true;
    state_->queue.clear();
  }
  state_->changed.notify_all();
  for (std::thread& thread : state_->threads) thread.join();
}

void Pool::serve() {
  spread_over_nodes();
  State& state = *state_;
  std::unique_lock lock(state.mutex);
  for (;;) {
    state.changed.wait(lock, [&] { return state.stopping || !state.queue.empty(); });
    if (state.stopping) return;
    std::function<void()> task = std::move(state.queue.front());
    state.queue.pop_front();
    lock.unlock();
    task();
    task = nullptr;  // what it holds is released without the lock
    lock.lock();
  }
}

bool Pool::submit(std::function<void()> task) {
  if (forked()) return false;
  State& state = *state_;
  {
    const std::lock_guard lock(state.mutex);
    if (state.stopping || state.queue.size() >= kQueueLimit) return false;
    if (state.threads.size() < threads_wanted_ && state.threads.size() <= state.queue.size()) {
      auto started = start_service_thread("hpcore-data", [this] { serve(); }, false);
      if (started.ok()) state.threads.push_back(std::move(started.value()));
    }
    if (state.threads.empty()) return false;
    state.queue.push_back(std::move(task));
  }
  state.changed.notify_one();
  return true;
}

namespace {

struct Shared {
  std::atomic<size_t> next{0};
  std::atomic<size_t> done{0};
  std::mutex mutex;
  std::condition_variable all;
};

void take_turns(Shared* shared, size_t count, const std::function<void(size_t)>& task) {
  for (;;) {
    const size_t mine = shared->next.fetch_add(1);
    if (mine >= count) return;
    task(mine);
    if (shared->done.fetch_add(1) + 1 == count) {
      const std::lock_guard lock(shared->mutex);
      shared->all.notify_all();
    }
  }
}

}  // namespace

void Pool::share(size_t count, const std::function<void(size_t)>& task) {
  if (count <= 1 || threads_wanted_ <= 1) {
    for (size_t i = 0; i < count; ++i) task(i);
    return;
  }
  // shared: a helper that comes late finds nothing left to take, after this call has returned.
  auto shared = std::make_shared<Shared>();
  const size_t helpers = std::min<size_t>(threads_wanted_ - 1, count - 1);
  const std::function<void(size_t)>* work = &task;  // used only while something is left to take
  for (size_t i = 0; i < helpers; ++i) {
    if (!submit([shared, count, work] { take_turns(shared.get(), count, *work); })) break;
  }
  take_turns(shared.get(), count, task);
  std::unique_lock lock(shared->mutex);
  shared->all.wait(lock, [&] { return shared->done.load() == count; });
}

}  // namespace hpcore::dataset
