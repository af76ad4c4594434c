#include "roster/revocation.hpp"

#include <algorithm>

namespace hpcore::roster {

void Revocation::revoke(uint64_t generation) {
  uint64_t seen = local_.load(std::memory_order_relaxed);
  while (seen < generation && !local_.compare_exchange_weak(seen, generation)) {
  }
  ring_all();
}

void Revocation::attach(Doorbell* doorbell) {
  const std::lock_guard lock(mutex_);
  doorbells_.push_back(doorbell);
}

void Revocation::detach(Doorbell* doorbell) {
  const std::lock_guard lock(mutex_);
  if (const auto at = std::find(doorbells_.begin(), doorbells_.end(), doorbell);
      at != doorbells_.end())
    doorbells_.erase(at);
}

void Revocation::ring_all() {
  const std::lock_guard lock(mutex_);
  for (Doorbell* doorbell : doorbells_) doorbell->ring();
}

}  // namespace hpcore::roster
