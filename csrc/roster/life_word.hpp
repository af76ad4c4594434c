// Purpose: death seen at once. A thread holds a robust futex in shared memory; when its process
// dies, the kernel marks the word FUTEX_OWNER_DIED before it frees the process's memory (a pidfd or
// socket speaks only after that). Method: set_robust_list(2),
// Documentation/locking/robust-futex-ABI. Threads: a LifeHold belongs to the thread that made it;
// watching is thread-safe. Ownership: a LifeHold replaces the C library's robust list of its
// thread, which therefore must not lock robust mutexes; it lets go of nothing: only the thread's
// end marks the word.
#pragma once

#include <linux/futex.h>

#include "base/futex.hpp"

namespace hpcore::roster {

class LifeHold {
 public:
  explicit LifeHold(std::atomic<uint32_t>& word);  // takes the word for the calling thread
  LifeHold(const LifeHold&) = delete;
  LifeHold& operator=(const LifeHold&) = delete;
  // False where the system call is not allowed: then no death is seen through the word.
  [[nodiscard]] bool registered() const { return registered_; }

 private:
  bool registered_ = false;
  robust_list entry_{};
  robust_list_head head_{};
};

inline bool owner_died(uint32_t word) { return (word & FUTEX_OWNER_DIED) != 0; }

// Says in the word that somebody waits (else the kernel wakes nobody, and then it wakes one only);
// returns what the word holds now. An empty word stays as it is.
uint32_t mark_waiter(std::atomic<uint32_t>& word);

// Sleeps until the word's owner died (true) or the deadline passed or somebody woke the word
// (false).
bool wait_for_death(std::atomic<uint32_t>& word, TimePoint deadline);

}  // namespace hpcore::roster
