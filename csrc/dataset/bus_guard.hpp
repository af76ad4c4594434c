// Purpose: reading a mapping whose file may be cut short, or whose disk may fail, without dying of
// SIGBUS. While a thread holds a guard, a bus error of that thread within the guarded range puts a
// page of zeros there and is noted; whoever holds the guard asks hit() afterwards and throws away
// what was read. A bus error anywhere else goes to the handler that was there before (Python's
// faulthandler, say), as if there were none of ours.
// Why a handler: fstat before each copy leaves a race; pread gives 0.83 and process_vm_readv(self)
// 0.67 of memcpy's speed in pieces of 64 KiB (docs/decisions.md). Entering a guard costs one
// sigaction call, which puts the handler back where somebody replaced it.
//
// Threads: a guard belongs to the thread that made it; guards nest. The handler is one a process,
// as the kernel has it.
//
// Ownership: none; the mapping must outlive the guard.
#pragma once

#include <cstdint>

namespace hpcore::dataset {

class BusGuard {
 public:
  BusGuard(const unsigned char* begin, uint64_t bytes);
  ~BusGuard();
  BusGuard(const BusGuard&) = delete;
  BusGuard& operator=(const BusGuard&) = delete;

  [[nodiscard]] bool hit() const { return hit_; }
  // Of the last page that could not be read, from `begin`.
  [[nodiscard]] uint64_t offset() const { return offset_; }

  // For the handler.
  static bool take(const void* address);

 private:
  const unsigned char* begin_;
  uint64_t bytes_;
  BusGuard* outer_;
  volatile bool hit_ = false;
  volatile uint64_t offset_ = 0;
};

}  // namespace hpcore::dataset
