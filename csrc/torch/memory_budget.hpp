// Purpose: how much shared memory the groups of this process may take for their buffers, together.
// Each group takes an area of the same size in all its ranks, chosen by its rank 0: an eighth of
// what is left there, at most `group_bytes`, and never less than kLeastBytes, so that the
// thousandth group works as well, more slowly for large tensors. Threads: thread-safe. Ownership:
// shared by the groups; a Lease gives back what it took.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <mutex>
#include <utility>

namespace hpcore::torch_binding {

class MemoryBudget {
 public:
  static constexpr size_t kTotalBytes = size_t{64} << 20;
  static constexpr size_t kGroupBytes = size_t{4} << 20;
  static constexpr size_t kLeastBytes = size_t{128} << 10;

  explicit MemoryBudget(size_t total_bytes = kTotalBytes, size_t group_bytes = kGroupBytes)
      : total_bytes_(total_bytes), group_bytes_(group_bytes) {}

  // What the next group should have.
  [[nodiscard]] size_t next_area() const {
    const std::lock_guard lock(mutex_);
    const size_t left = total_bytes_ - std::min(total_bytes_, taken_bytes_);
    return std::max(kLeastBytes, std::min(group_bytes_, left / 8));
  }
  void take(size_t bytes) {
    const std::lock_guard lock(mutex_);
    taken_bytes_ += bytes;
  }
  void give_back(size_t bytes) {
    const std::lock_guard lock(mutex_);
    taken_bytes_ -= bytes;
  }
  [[nodiscard]] size_t taken_bytes() const {
    const std::lock_guard lock(mutex_);
    return taken_bytes_;
  }

 private:
  mutable std::mutex mutex_;
  size_t total_bytes_;
  size_t group_bytes_;
  size_t taken_bytes_ = 0;
};

// Move-only: what one group holds of the budget.
class BudgetLease {
 public:
  BudgetLease() = default;
  BudgetLease(std::shared_ptr<MemoryBudget> budget, size_t bytes)
      : budget_(std::move(budget)), bytes_(bytes) {
    budget_->take(bytes_);
  }
  BudgetLease(BudgetLease&& other) noexcept
      : budget_(std::move(other.budget_)), bytes_(other.bytes_) {}
  BudgetLease& operator=(BudgetLease&& other) noexcept {
    std::swap(budget_, other.budget_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~BudgetLease() {
    if (budget_) budget_->give_back(bytes_);
  }

 private:
  std::shared_ptr<MemoryBudget> budget_;
  size_t bytes_ = 0;
};

}  // namespace hpcore::torch_binding
