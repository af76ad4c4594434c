// Purpose: which receiver pulls which bytes from which source: a pure function of who holds what,
// where ranks are and how fast they proved to be; and the same for what remains when a source died,
// lags or gave bytes that did not match.
// State is described by families: tensors that are laid over the ranks in one way (replicated;
// sharded over one dimension of a mesh). A family parts the ranks into replica groups that hold
// identical bytes. What a rank holds of a family, tensor after tensor, is one byte range; a plan
// speaks of intervals of it, never of single chunks, so its size does not grow with the state.
// How: each receiver's bytes are dealt in whole chunks, in at most 256 portions, each to the source
// that would be done with it first; the nearer one if it is at most a portion later, or if the
// receiver's own intake is the limit. So all healthy replicas serve at once, near ones take more
// by as much as they are faster, and nobody's load exceeds the ideal by more than a portion.
// Threads: pure functions. Ownership: plain values.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.hpp"

namespace hpcore::state {

enum Nearness : uint8_t { kSameProcess, kSameNode, kSameRack, kElsewhere, kNearnesses };

// Bytes per second that one source gives one receiver, by nearness, until something was measured;
// and what a receiver can take in at most.
struct PlanRates {
  double by_nearness[kNearnesses] = {20e9, 10e9, 2.5e9, 1e9};
  double intake = 20e9;
};

// One rank. Equal labels: same process, node, rack. A label means something within the next wider
// one only if the caller made it so: labels are compared as they are.
struct RankFacts {
  uint32_t process = 0;
  uint32_t node = 0;
  uint32_t rack = 0;
  uint64_t version = 0;         // of the state that it holds
  bool healthy = true;          // false: dead, silent, or ruled out: no source
  double rate_bytes_per_s = 0;  // at which it was seen to give; 0: not known
};

struct TensorSize {
  std::string name;
  uint64_t bytes = 0;  // as one rank holds it
  uint32_t family = 0;
};

constexpr uint32_t kHoldsNothing = UINT32_MAX;

struct Family {
  std::vector<uint32_t> group_of;     // by rank: equal numbers hold equal bytes; or kHoldsNothing
  std::vector<uint64_t> group_bytes;  // by group, where groups differ in size; empty: all alike
};

struct PlanRequest {
  std::vector<TensorSize> tensors;
  std::vector<Family> families;
  std::vector<RankFacts> ranks;
  std::vector<uint32_t> receivers;  // ranks that are healed: never sources
  uint64_t version = 0;             // the state that is to arrive: no other is ever planned
  uint64_t chunk_bytes = 1 << 20;
  PlanRates rates;
};

// Bytes [begin, end) of a family's range, as `receiver` holds it, come from `source`.
struct PlannedPull {
  uint32_t receiver = 0;
  uint32_t source = 0;
  uint32_t family = 0;
  uint64_t begin = 0;
  uint64_t end = 0;
};

// Bytes that have not arrived, and who must not be asked for them again (their digest failed).
struct Remaining {
  uint32_t receiver = 0;
  uint32_t family = 0;
  uint64_t begin = 0;  // a multiple of chunk_bytes
  uint64_t end = 0;
  std::vector<uint32_t> refused;
};

// Sorted by receiver, family, begin. kNotFound when a group has no source left: the message names
// the tensors, the ranks, and why each of them cannot serve. kInvalid for a request that
// contradicts itself.
Result<std::vector<PlannedPull>> plan_transfer(const PlanRequest& request);
Result<std::vector<PlannedPull>> replan_transfer(const PlanRequest& request,
                                                 std::vector<Remaining> remaining);

Nearness nearness(const RankFacts& one, const RankFacts& other);

}  // namespace hpcore::state
