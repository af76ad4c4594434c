// Purpose: the threads that read ahead and gather large batches. Started when first needed.
// Threads: thread-safe. `share` runs on the caller's thread too, so it ends even if no thread is
// free, and in a forked child, which has none of these threads.
// Ownership: owns its threads; the destructor drops what waits in the queue, ends what runs, joins.
// In a forked child all of it is left alone, and leaks: the threads are the parent's, the mutex may
// be held by nobody, and glibc would wait for ever to destroy a condition variable with sleepers.
// Full queue (1,024 tasks): `submit` says no, the caller does without.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace hpcore::dataset {

class Pool {
 public:
  static constexpr size_t kQueueLimit = 1024;

  explicit Pool(unsigned threads);
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  [[nodiscard]] unsigned threads() const { return threads_wanted_; }
  // Runs `task` some time, on one of the threads; false if it will not. Tasks must not throw.
  bool submit(std::function<void()> task);
  // Calls task(0) ... task(count - 1) on this and the pool's threads; returns when all are done.
  void share(size_t count, const std::function<void(size_t)>& task);

 private:
  void serve();
  [[nodiscard]] bool forked() const;

  const unsigned threads_wanted_;
  const int owner_pid_;
  struct State {
    std::mutex mutex;
    std::condition_variable changed;
    std::deque<std::function<void()>> queue;
    std::vector<std::thread> threads;
    bool stopping = false;
  };
  std::unique_ptr<State> state_ = std::make_unique<State>();
};

}  // namespace hpcore::dataset
