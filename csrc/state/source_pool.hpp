// Purpose: the sources of one replica group while a transfer is planned: who would be done first
// with another portion for a given receiver.
// Threads: one. Ownership: borrows the request and the busy times, which outlive it.
#pragma once

#include <set>
#include <unordered_map>
#include <vector>

#include "state/transfer_plan.hpp"

namespace hpcore::state {

// What one receiver was given so far, in the order of first use.
struct Share {
  uint32_t source = 0;
  uint64_t portions = 0;
};

class SourcePool {
 public:
  // busy_s: by rank, seconds that it is busy with what was planned before.
  SourcePool(const PlanRequest& request, uint64_t portion_bytes, std::vector<double>* busy_s,
             const std::vector<uint32_t>& sources);
  [[nodiscard]] bool empty() const { return all_.empty(); }
  // Deals one portion; `shares` are the receiver's. taken_s: when the receiver could have taken it
  // in, portion included.
  void deal(uint32_t receiver, double taken_s, std::vector<Share>* shares);

 private:
  using Queue = std::set<std::pair<double, uint32_t>>;  // (done with one more at best, rank)
  struct Choice {
    uint32_t source = kHoldsNothing;
    Nearness near = kElsewhere;
    double portion_s = 0;
    double done_s = 0;  // of this source
    double cost_s = 0;  // of source and receiver
  };

  [[nodiscard]] double seconds(uint32_t receiver, uint32_t source) const;
  [[nodiscard]] std::pair<double, uint32_t> entry(uint32_t source) const;
  void consider(uint32_t receiver, uint32_t source, double taken_s, Choice* best) const;
  void move(uint32_t source, double busy_s);
  [[nodiscard]] const Queue* queue(Nearness level, const RankFacts& of) const;

  const PlanRequest& request_;
  const uint64_t portion_bytes_;
  std::vector<double>& busy_s_;
  std::unordered_map<uint32_t, Queue> near_[kElsewhere];  // by process, node, rack
  Queue all_;
};

}  // namespace hpcore::state
