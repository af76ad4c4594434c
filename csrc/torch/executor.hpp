// Purpose: runs a backend's operations one after the other, in the order of their submission: on
// one thread of its own, or in a thread that waits anyway (a thread switch costs about 60 us on a
// virtual machine). Threads: thread-safe. Ownership: a job is destroyed as soon as it ran. The
// queue's bound is the caller's memory: each entry is an operation whose tensors the caller holds.
// Lifecycle: the thread starts with the first queued job; finish() runs what is queued and joins;
// twice is fine. reopen() lets it
// take jobs again.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

namespace hpcore::torch_binding {

class Executor {
 public:
  using Job = std::function<void()>;  // must not throw

  Executor() = default;
  ~Executor() { finish(); }
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  // With `caller_waits`, and nothing ahead of it, the job runs before this returns.
  // False after finish(): the job was not taken.
  bool submit(Job job, bool caller_waits);
  // A function that runs queued jobs in the calling thread until done() holds; it may outlive the
  // Executor.
  [[nodiscard]] std::function<void(const std::function<bool()>& done)> helper() const {
    return [state = state_](const std::function<bool()>& done) { state->help(done); };
  }
  void finish();
  void reopen();

 private:
  // Shared with the thread: a callback of the last job may destroy the Executor on that very
  // thread.
  struct State {
    std::mutex mutex;
    std::condition_variable changed;
    std::deque<Job> queue;
    bool running = false;  // a job runs, in whatever thread
    bool finished = false;

    void run(std::unique_lock<std::mutex>& lock, Job job);
    void run_next(std::unique_lock<std::mutex>& lock);
    void loop();
    void help(const std::function<bool()>& done);
  };

  std::shared_ptr<State> state_ = std::make_shared<State>();
  std::thread thread_;  // guarded by state_->mutex
};

}  // namespace hpcore::torch_binding
