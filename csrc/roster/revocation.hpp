// Purpose: "this generation is over", as everything that waits sees it: one word and the doorbells
// to ring when it rises. Threads: thread-safe. Ownership: shared by the Worker and each channel, so
// that doorbells can be detached at any time.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "base/doorbell.hpp"

namespace hpcore {

class Revocation {
 public:
  Revocation() : word_(&own_) {}
  explicit Revocation(const std::atomic<uint64_t>* word, std::shared_ptr<void> keep_alive = nullptr)
      : keep_alive_(std::move(keep_alive)), word_(word) {}

  [[nodiscard]] bool revoked(uint64_t generation) const {
    return word_->load(std::memory_order_acquire) >= generation;
  }
  void attach(Doorbell* doorbell) {
    const std::lock_guard lock(mutex_);
    doorbells_.push_back(doorbell);
  }
  void detach(Doorbell* doorbell) {
    const std::lock_guard lock(mutex_);
    const auto at = std::find(doorbells_.begin(), doorbells_.end(), doorbell);
    if (at != doorbells_.end()) doorbells_.erase(at);
  }
  void ring_all() {
    const std::lock_guard lock(mutex_);
    for (Doorbell* doorbell : doorbells_) doorbell->ring();
  }

 private:
  std::shared_ptr<void> keep_alive_;
  std::atomic<uint64_t> own_{0};
  const std::atomic<uint64_t>* word_;
  std::mutex mutex_;
  std::vector<Doorbell*> doorbells_;
};

}  // namespace hpcore
