// Purpose: holds a store's mutex for a scope. Whoever gets it after a holder was killed repairs the
// table first. Threads: one guard belongs to one thread. Ownership: none. A holder that is stopped
// (SIGSTOP) blocks others for at most kLockLimit: then they get kTimeout instead of hanging.
#pragma once

#include <cerrno>
#include <ctime>

#include "store/table.hpp"

namespace hpcore::store {

class Guard {
 public:
  static constexpr int kLockLimitSeconds = 30;

  explicit Guard(Table& table) : table_(table), error_(lock()) {
    if (error_ != EOWNERDEAD) return;
    table_.rebuild();
    pthread_mutex_consistent(&table_.header().mutex);
    error_ = 0;
  }
  ~Guard() {
    if (error_ == 0) pthread_mutex_unlock(&table_.header().mutex);
  }
  Guard(const Guard&) = delete;
  Guard& operator=(const Guard&) = delete;

  [[nodiscard]] Status status() const {
    if (error_ == 0) return {};
    if (error_ == ETIMEDOUT) {
      return {Code::kTimeout, "the store's lock was held by another process for " +
                                  std::to_string(kLockLimitSeconds) +
                                  " s: is a process stopped (SIGSTOP)?"};
    }
    return Status::system("cannot lock the store", error_);
  }

 private:
  int lock() {
    pthread_mutex_t* mutex = &table_.header().mutex;
    if (const int error = pthread_mutex_trylock(mutex); error != EBUSY) return error;
    timespec until{};
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += kLockLimitSeconds;
    return pthread_mutex_clocklock(mutex, CLOCK_MONOTONIC, &until);
  }

  Table& table_;
  int error_;
};

}  // namespace hpcore::store
