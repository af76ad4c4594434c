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
  // In this order: a word that was taken before the kernel knows of it could be held for ever.
  registered_ = syscall(SYS_set_robust_list, &head_, sizeof(head_)) == 0;
  word.store(static_cast<uint32_t>(syscall(SYS_gettid)), std::memory_order_seq_cst);
  futex_wake(word, INT_MAX);
}

uint32_t mark_waiter(std::atomic<uint32_t>& word) {
  uint32_t seen = word.load(std::memory_order_acquire);
  while (seen != 0 && !owner_died(seen) && (seen & FUTEX_WAITERS) == 0) {
    if (word.compare_exchange_weak(seen, seen | FUTEX_WAITERS)) return seen | FUTEX_WAITERS;
  }
  return seen;
}

bool wait_for_death(std::atomic<uint32_t>& word, TimePoint deadline) {
  const uint32_t seen = mark_waiter(word);
  if (owner_died(seen)) return true;
  futex_wait(word, seen, deadline);
  return owner_died(word.load(std::memory_order_acquire));
}

}  // namespace hpcore::roster
