// Purpose: what a rehearsal's operations do: they complete at once on the caller's own data.
// Threads: pure functions.
#pragma once

#include <atomic>
#include <cstring>

#include "base/status.hpp"
#include "collective/virtual_range.hpp"

namespace hpcore::collective {

inline Status rehearsal_standing(const std::atomic<bool>& aborted) {
  if (!aborted.load(std::memory_order_acquire)) return {};
  return {Code::kAborted, "the rehearsal communicator was closed by this process"};
}

// As much of `from` as fits.
inline void copy_buffer(const Buffer& to, const Buffer& from, size_t element_bytes) {
  const size_t elements = std::min(to.elements, from.elements);
  if (elements != 0 && to.data != from.data) {
    std::memmove(to.data, from.data, elements * element_bytes);
  }
}

}  // namespace hpcore::collective
