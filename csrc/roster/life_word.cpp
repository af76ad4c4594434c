#include "roster/life_word.hpp"

#include <sys/syscall.h>
#include <unistd.h>

#include <climits>

namespace hpcore::roster {

LifeHold::LifeHold(std::atomic<uint32_t>& word) {
  // One entry: the kernel finds the word at entry + futex_offset, so the entry itself may be
  // private memory.
  head_.list.next = &entry_;
  entry_.next = &head_.list;
  head_.futex_offset =
      static_cast<long>(reinterpret_cast<intptr_t>(&word) - reinterpret_cast<intptr_t>(&entry_));
  head_.list_op_pending = nullptr;
  word.store(static_cast<uint32_t>(syscall(SYS_gettid)), std::memory_order_seq_cst);
  syscall(SYS_set_robust_list, &head_, sizeof(head_));
  futex_wake(word, INT_MAX);
}

bool wait_for_death(std::atomic<uint32_t>& word, TimePoint deadline) {
  uint32_t seen = word.load(std::memory_order_acquire);
  if (owner_died(seen)) return true;
  // The kernel wakes only if the word says that somebody waits. An empty word is waited on as it
  // is.
  if (seen != 0 && (seen & FUTEX_WAITERS) == 0) {
    if (!word.compare_exchange_strong(seen, seen | FUTEX_WAITERS)) return owner_died(seen);
    seen |= FUTEX_WAITERS;
  }
  futex_wait(word, seen, deadline);
  return owner_died(word.load(std::memory_order_acquire));
}

}  // namespace hpcore::roster
