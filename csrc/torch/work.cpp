#include "torch/work.hpp"

#include "torch/error.hpp"
#include "torch/steady_wait.hpp"

namespace hpcore::torch_binding {

HpcoreWork::HpcoreWork(Facts facts)
    : Work(facts.rank, facts.type, facts.title,
           facts.inputs.empty() ? std::nullopt : std::optional(facts.inputs)),
      title_(facts.title),
      sequence_(facts.sequence),
      timeout_(facts.timeout),
      outputs_(std::move(facts.outputs)),
      ticket_(std::move(facts.ticket)) {}

void HpcoreWork::complete(const Status& status) { complete(exception_of(status)); }

void HpcoreWork::complete(std::exception_ptr error) {
  c10::intrusive_ptr<c10::ivalue::Future> future;
  {
    const std::lock_guard lock(mutex_);
    if (completed_) return;
    future = future_;
    ended_ = Clock::now();
  }
  ticket_.ended(!error);
  finish(error);
  {
    const std::lock_guard lock(mutex_);
    driver_ = nullptr;
    if (!future) future = future_;  // somebody asked between the two locks
  }
  if (!future) return;
  // getFuture() completes a future that it makes after finish(), so one of the two may find it
  // done.
  if (error)
    future->setErrorIfNeeded(error);
  else if (!future->completed())
    future->markCompleted(c10::IValue(outputs_));
}

void HpcoreWork::drive() {
  std::function<void()> driver;
  {
    const std::lock_guard lock(mutex_);
    driver = driver_;
  }
  if (driver) driver();
}

float HpcoreWork::getDuration() const {
  const std::lock_guard lock(mutex_);
  if (!completed_) {
    raise({Code::kInvalid, std::string(title_) + " (sequence number " + std::to_string(sequence_) +
                               ") has no duration yet: it is not complete. wait() first"});
  }
  return std::chrono::duration<float, std::milli>(ended_ - begun_).count();
}

bool HpcoreWork::wait(std::chrono::milliseconds timeout) {
  if (timeout == kNoTimeout) drive();
  std::unique_lock lock(mutex_);
  const auto done = [this] { return completed_; };
  if (timeout == kNoTimeout) {
    steady_wait(cv_, lock, done);
  } else if (!cv_.wait_for(lock, timeout, done)) {
    raise({Code::kTimeout, std::string(title_) + " (sequence number " + std::to_string(sequence_) +
                               ") is not complete after wait(" + std::to_string(timeout.count()) +
                               " ms). It goes on; wait again, or abort the group"});
  }
  if (exception_) std::rethrow_exception(exception_);
  return true;
}

c10::intrusive_ptr<c10::ivalue::Future> HpcoreWork::getFuture() {
  const std::lock_guard lock(mutex_);
  if (future_) return future_;
  future_ = c10::make_intrusive<c10::ivalue::Future>(c10::ListType::create(c10::TensorType::get()));
  if (completed_) {
    if (exception_)
      future_->setError(exception_);
    else
      future_->markCompleted(c10::IValue(outputs_));
  }
  return future_;
}

void HpcoreWork::abort() {
  complete({Code::kAborted, std::string(title_) + " was aborted by this process"});
}

}  // namespace hpcore::torch_binding
