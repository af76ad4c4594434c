// Purpose: says whether a generation is over, and wakes whatever of this process waits in its
// channels. Threads: thread-safe; revoked() is one acquire load. Ownership: shared between the
// worker's sentinel and all channels (they outlive each other in any order); doorbells are borrowed
// between attach() and detach().
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "base/doorbell.hpp"

namespace hpcore::roster {

class Revocation {
 public:
  // Of a node segment: `word` must stay valid as long as `keeper` lives.
  explicit Revocation(const std::atomic<uint64_t>* word, std::shared_ptr<void> keeper = nullptr)
      : word_(word), keeper_(std::move(keeper)) {}
  // Local to this process: nothing is revoked until revoke() is called.
  Revocation() : word_(&local_) {}
  Revocation(const Revocation&) = delete;
  Revocation& operator=(const Revocation&) = delete;

  [[nodiscard]] bool revoked(uint64_t generation) const {
    return word_->load(std::memory_order_acquire) >= generation;
  }
  [[nodiscard]] uint64_t newest() const { return word_->load(std::memory_order_acquire); }
  void revoke(uint64_t generation);  // local ones only
  void attach(Doorbell* doorbell);
  void detach(Doorbell* doorbell);
  void ring_all();

 private:
  std::atomic<uint64_t> local_{0};
  const std::atomic<uint64_t>* word_;
  std::shared_ptr<void> keeper_;
  std::mutex mutex_;
  std::vector<Doorbell*> doorbells_;
};

}  // namespace hpcore::roster

namespace hpcore {
using roster::Revocation;
}
