// Purpose: a reader that becomes slow, or loses its source, after so many bytes: what tests and
// benches put in the place of a bad link or a dying process, at an exact byte.
// Threads: thread-safe; readers share the pace. Ownership: owns the reader it wraps.
#pragma once

#include <mutex>

#include "base/futex.hpp"
#include "transport/remote_memory.hpp"

namespace hpcore::transport {

struct Pace {
  uint64_t after_bytes = 0;  // the first so many pass untouched
  double bytes_per_s = 0;    // from then on; 0: the source is gone
  [[nodiscard]] bool none() const { return after_bytes == UINT64_MAX; }
};
constexpr Pace kUnpaced{UINT64_MAX, 0};

class PacedMemory final : public RemoteMemory {
 public:
  PacedMemory(std::unique_ptr<RemoteMemory> inner, const Pace& pace)
      : inner_(std::move(inner)), pace_(pace) {}
  [[nodiscard]] Status read(uint64_t offset, uint64_t bytes, const RegionMap& into,
                            const StopCondition& stop) override;
  [[nodiscard]] Status read_digested(uint64_t offset, uint64_t bytes, const RegionMap& into,
                                     Digester* digester, const StopCondition& stop) override;
  [[nodiscard]] Status digest(uint64_t offset, uint64_t bytes, Digester* digester,
                              const StopCondition& stop) override;
  [[nodiscard]] std::string method() const override { return inner_->method(); }
  [[nodiscard]] std::string note() const override { return inner_->note(); }

 private:
  [[nodiscard]] Status wait_turn(uint64_t bytes, const StopCondition& stop);
  std::unique_ptr<RemoteMemory> inner_;
  const Pace pace_;
  std::mutex mutex_;  // guards both
  uint64_t passed_ = 0;
  TimePoint next_{};  // when the link is free again
};

}  // namespace hpcore::transport
