// Purpose: the handle of one operation: wait, poll, future, error.
// Threads: thread-safe. Ownership: shared by the caller and the queue; holds the tensors until it
// is done. Lifecycle: exactly one complete(); callbacks of the future fire once, outside locks, on
// the completing thread.
#pragma once

#include <functional>
#include <torch/csrc/distributed/c10d/Work.hpp>

#include "base/futex.hpp"
#include "base/status.hpp"
#include "torch/flight_recorder.hpp"

namespace hpcore::torch_binding {

class HpcoreWork : public c10d::Work {
 public:
  struct Facts {
    int rank = -1;
    c10d::OpType type = c10d::OpType::UNKNOWN;
    const char* title = "hpcore";  // must live for ever
    uint64_t sequence = 0;
    std::vector<at::Tensor> inputs;   // for the profiler
    std::vector<at::Tensor> outputs;  // what result() and the future give
    FlightTicket ticket;
    std::chrono::milliseconds timeout = kNoTimeout;
  };

  explicit HpcoreWork(Facts facts);

  void complete(std::exception_ptr error);  // null: it went well
  void complete(const Status& status);
  void set_source(int rank) { source_ = rank; }
  void started() { ticket_.started(); }
  // What a waiting thread may do to make the operation move (point-to-point); returns when it is
  // complete.
  void set_driver(std::function<void()> driver) { driver_ = std::move(driver); }

  // Makes it move in the calling thread until it is complete, if it can be moved.
  void drive();

  bool wait(std::chrono::milliseconds timeout) override;
  std::vector<at::Tensor> result() override { return outputs_; }
  int sourceRank() const override { return source_; }
  uint64_t getSequencenumber() const override { return sequence_; }
  // Milliseconds from the call to the end, waiting for other ranks included; raises before that.
  float getDuration() const override;
#if HPCORE_TORCH_MINOR >= 14
  std::chrono::milliseconds getTimeout() const override { return timeout_; }
#endif
  c10::intrusive_ptr<c10::ivalue::Future> getFuture() override;
  void abort() override;

 private:
  const char* title_;
  uint64_t sequence_;
  std::chrono::milliseconds timeout_;
  int source_ = -1;
  TimePoint begun_ = Clock::now();
  TimePoint ended_{};  // guarded by mutex_
  std::vector<at::Tensor> outputs_;
  FlightTicket ticket_;
  std::function<void()> driver_;
  c10::intrusive_ptr<c10::ivalue::Future> future_;
};

}  // namespace hpcore::torch_binding
