// Purpose: what a request for a transfer plan says about ranks and sizes, and what is wrong with
// it, in words. Threads: pure functions. Ownership: none.
#pragma once

#include "state/transfer_plan.hpp"

namespace hpcore::state {

// Healthy, and holds exactly the version that is to arrive.
bool can_serve(const PlanRequest& request, uint32_t rank);
bool is_receiver(const PlanRequest& request, uint32_t rank);  // receivers must be sorted

// By family: the sum of its tensors.
std::vector<uint64_t> family_bytes(const PlanRequest& request);
// What `rank` holds of a family.
uint64_t bytes_of(const PlanRequest& request, const std::vector<uint64_t>& sums, uint32_t family,
                  uint32_t rank);

[[nodiscard]] Status check_request(const PlanRequest& request);
[[nodiscard]] Status check_remaining(const PlanRequest& request,
                                     const std::vector<Remaining>& remaining);
// None of `ranks`, which make up one replica group, can serve: what is lost, and why.
[[nodiscard]] Status lost(const PlanRequest& request, uint32_t family,
                          const std::vector<uint32_t>& ranks, const std::vector<uint32_t>& refused);

}  // namespace hpcore::state
