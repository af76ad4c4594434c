#include "state/plan_check.hpp"

#include <algorithm>

namespace hpcore::state {
namespace {

constexpr size_t kNamed = 3;  // tensors and ranks that a message names

std::string n(uint64_t value) { return std::to_string(value); }

Status invalid(const std::string& text) { return {Code::kInvalid, "transfer plan: " + text}; }

std::string why_not(const PlanRequest& request, uint32_t rank,
                    const std::vector<uint32_t>& refused) {
  const RankFacts& facts = request.ranks[rank];
  if (is_receiver(request, rank)) return " is itself to be healed";
  if (!facts.healthy) return " is not healthy";
  if (facts.version != request.version) return " holds version " + n(facts.version);
  const bool failed = std::find(refused.begin(), refused.end(), rank) != refused.end();
  return failed ? " gave bytes whose digest differs" : " can serve";
}

}  // namespace

bool can_serve(const PlanRequest& request, uint32_t rank) {
  return request.ranks[rank].healthy && request.ranks[rank].version == request.version;
}

bool is_receiver(const PlanRequest& request, uint32_t rank) {
  return std::binary_search(request.receivers.begin(), request.receivers.end(), rank);
}

std::vector<uint64_t> family_bytes(const PlanRequest& request) {
  std::vector<uint64_t> sums(request.families.size());
  for (const TensorSize& tensor : request.tensors) sums[tensor.family] += tensor.bytes;
  return sums;
}

uint64_t bytes_of(const PlanRequest& request, const std::vector<uint64_t>& sums, uint32_t family,
                  uint32_t rank) {
  const Family& held = request.families[family];
  const uint32_t group = held.group_of[rank];
  if (group == kHoldsNothing) return 0;
  return held.group_bytes.empty() ? sums[family] : held.group_bytes[group];
}

Status check_request(const PlanRequest& request) {
  const size_t ranks = request.ranks.size();
  if (request.chunk_bytes == 0) return invalid("chunks of 0 bytes");
  for (const double rate : request.rates.by_nearness) {
    if (!(rate > 0)) return invalid("a rate is not above 0 bytes/s: " + std::to_string(rate));
  }
  if (!(request.rates.intake > 0)) return invalid("the intake is not above 0 bytes/s");
  for (const TensorSize& tensor : request.tensors) {
    if (tensor.family >= request.families.size()) {
      return invalid("tensor " + tensor.name + " is of family " + n(tensor.family) + " of " +
                     n(request.families.size()));
    }
  }
  for (size_t i = 0; i < request.families.size(); ++i) {
    const Family& family = request.families[i];
    if (family.group_of.size() != ranks) {
      return invalid("family " + n(i) + " speaks of " + n(family.group_of.size()) +
                     " ranks, there are " + n(ranks));
    }
    for (const uint32_t group : family.group_of) {
      if (group == kHoldsNothing) continue;
      if (group >= ranks || (!family.group_bytes.empty() && group >= family.group_bytes.size())) {
        return invalid("family " + n(i) + " has no group " + n(group));
      }
    }
  }
  for (size_t i = 0; i < request.receivers.size(); ++i) {
    const uint32_t rank = request.receivers[i];
    if (rank >= ranks) return invalid("receiver " + n(rank) + " of " + n(ranks) + " ranks");
    if (i > 0 && request.receivers[i - 1] >= rank) return invalid("receivers are not ascending");
  }
  return {};
}

Status check_remaining(const PlanRequest& request, const std::vector<Remaining>& remaining) {
  const std::vector<uint64_t> sums = family_bytes(request);
  for (const Remaining& part : remaining) {
    if (!is_receiver(request, part.receiver) || part.family >= request.families.size()) {
      return invalid("what remains names rank " + n(part.receiver) + " and family " +
                     n(part.family) + ", which the request does not");
    }
    const uint64_t bytes = bytes_of(request, sums, part.family, part.receiver);
    if (part.begin > part.end || part.end > bytes || part.begin % request.chunk_bytes != 0 ||
        (part.end != bytes && part.end % request.chunk_bytes != 0)) {
      return invalid("bytes " + n(part.begin) + " to " + n(part.end) + " of " + n(bytes) +
                     " are no whole chunks of " + n(request.chunk_bytes));
    }
  }
  return {};
}

Status lost(const PlanRequest& request, uint32_t family, const std::vector<uint32_t>& ranks,
            const std::vector<uint32_t>& refused) {
  std::string names;
  size_t count = 0;
  for (const TensorSize& tensor : request.tensors) {
    if (tensor.family != family) continue;
    if (count++ < kNamed) names += (names.empty() ? "" : ", ") + tensor.name;
  }
  if (count > kNamed) names += " and " + n(count - kNamed) + " more";
  std::string who;
  for (size_t i = 0; i < std::min(ranks.size(), kNamed); ++i) {
    who += (who.empty() ? "rank " : ", rank ") + n(ranks[i]) + why_not(request, ranks[i], refused);
  }
  if (ranks.size() > kNamed) who += ", and " + n(ranks.size() - kNamed) + " more";
  return {Code::kNotFound, "state of version " + n(request.version) +
                               " is lost, no rank can give " + names + ": " + who +
                               "; take it from a shadow or a checkpoint"};
}

}  // namespace hpcore::state
