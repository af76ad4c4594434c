#include "torch/executor.hpp"

#include "torch/quiet_thread.hpp"
#include "torch/steady_wait.hpp"

namespace hpcore::torch_binding {

void Executor::State::run(std::unique_lock<std::mutex>& lock, Job job) {
  running = true;
  lock.unlock();
  job();
  job = nullptr;  // its tensors go before anybody is told
  lock.lock();
  running = false;
  changed.notify_all();
}

void Executor::State::run_next(std::unique_lock<std::mutex>& lock) {
  Job job = std::move(queue.front());
  queue.pop_front();
  run(lock, std::move(job));
}

void Executor::State::loop() {
  std::unique_lock lock(mutex);
  for (;;) {
    steady_wait(changed, lock, [this] { return !running && (!queue.empty() || finished); });
    if (queue.empty()) return;
    run_next(lock);
  }
}

void Executor::State::help(const std::function<bool()>& done) {
  std::unique_lock lock(mutex);
  while (!done()) {
    if (!running && !queue.empty())
      run_next(lock);
    else if (!running)
      return;
    else
      steady_wait(changed, lock);
  }
}

bool Executor::submit(Job job, bool caller_waits) {
  std::unique_lock lock(state_->mutex);
  if (state_->finished) return false;
  if (caller_waits && !state_->running && state_->queue.empty()) {
    state_->run(lock, std::move(job));
    return true;
  }
  state_->queue.push_back(std::move(job));
  if (!thread_.joinable() &&
      !start_quiet_thread("hpcore-c10d", thread_, [state = state_] { state->loop(); })) {
    while (!state_->queue.empty() && !state_->running) state_->run_next(lock);  // slower, as right
  }
  lock.unlock();
  state_->changed.notify_all();
  return true;
}

void Executor::reopen() {
  const std::lock_guard lock(state_->mutex);
  state_->finished = false;
}

void Executor::finish() {
  std::thread thread;
  {
    const std::lock_guard lock(state_->mutex);
    state_->finished = true;
    thread = std::move(thread_);
  }
  state_->changed.notify_all();
  if (thread.get_id() == std::this_thread::get_id()) {
    thread.detach();
    return;
  }
  if (thread.joinable()) thread.join();
  std::unique_lock lock(state_->mutex);
  steady_wait(state_->changed, lock, [this] { return !state_->running && state_->queue.empty(); });
}

}  // namespace hpcore::torch_binding
