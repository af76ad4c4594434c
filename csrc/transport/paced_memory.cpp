#include "transport/paced_memory.hpp"

#include <algorithm>
#include <thread>

namespace hpcore::transport {

// Waits as long as the bytes would take, in slices that let `stop` speak.
Status PacedMemory::wait_turn(uint64_t bytes, const StopCondition& stop) {
  TimePoint until;
  {
    const std::scoped_lock lock(mutex_);
    passed_ += bytes;
    if (passed_ <= pace_.after_bytes) return {};
    if (pace_.bytes_per_s <= 0) return {Code::kPeerDead, "reading state: the source is gone"};
    const std::chrono::duration<double> taken(static_cast<double>(bytes) / pace_.bytes_per_s);
    next_ = std::max(next_, Clock::now()) + std::chrono::duration_cast<Clock::duration>(taken);
    until = next_;
  }
  while (Clock::now() < until) {
    if (stop()) return {Code::kAborted, "reading state was stopped"};
    std::this_thread::sleep_until(std::min(until, Clock::now() + std::chrono::milliseconds(1)));
  }
  return {};
}

Status PacedMemory::read(uint64_t offset, uint64_t bytes, const RegionMap& into,
                         const StopCondition& stop) {
  HPCORE_RETURN_IF_ERROR(wait_turn(bytes, stop));
  return inner_->read(offset, bytes, into, stop);
}

Status PacedMemory::read_digested(uint64_t offset, uint64_t bytes, const RegionMap& into,
                                  Digester* digester, const StopCondition& stop) {
  HPCORE_RETURN_IF_ERROR(wait_turn(bytes, stop));
  return inner_->read_digested(offset, bytes, into, digester, stop);
}

Status PacedMemory::digest(uint64_t offset, uint64_t bytes, Digester* digester,
                           const StopCondition& stop) {
  HPCORE_RETURN_IF_ERROR(wait_turn(bytes, stop));
  return inner_->digest(offset, bytes, digester, stop);
}

}  // namespace hpcore::transport
