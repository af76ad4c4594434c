#include "state/transfer_plan.hpp"

#include <algorithm>
#include <numeric>
#include <tuple>

#include "state/plan_check.hpp"
#include "state/source_pool.hpp"

namespace hpcore::state {
namespace {

constexpr uint64_t kMaxPortions = 256;        // of one receiver
constexpr uint64_t kPortionsInAll = 1 << 19;  // bounds the time of a plan with many receivers

struct Interval {
  uint64_t begin;
  uint64_t end;
};

// All that one receiver still needs of one family, from sources that are alike for all of it.
struct Demand {
  uint32_t receiver = 0;
  uint32_t family = 0;
  uint32_t group = 0;
  std::vector<uint32_t> refused;
  std::vector<Interval> intervals;  // sorted
  uint64_t chunks = 0;
  uint64_t dealt = 0;  // chunks, while they are dealt
  std::vector<Share> shares;
};

uint64_t chunks_of(uint64_t bytes, uint64_t chunk_bytes) {
  return (bytes + chunk_bytes - 1) / chunk_bytes;
}

bool same_sources(const Demand& one, const Demand& other) {
  return one.family == other.family && one.group == other.group && one.refused == other.refused;
}

class Planner {
 public:
  explicit Planner(const PlanRequest& request)
      : request_(request), busy_s_(request.ranks.size()), taken_s_(request.ranks.size()) {}

  Result<std::vector<PlannedPull>> run(std::vector<Demand> demands) {
    std::stable_sort(demands.begin(), demands.end(), [](const Demand& a, const Demand& b) {
      return std::tie(a.family, a.group, a.refused, a.receiver) <
             std::tie(b.family, b.group, b.refused, b.receiver);
    });
    portions_ =
        std::clamp<uint64_t>(kPortionsInAll / std::max<size_t>(demands.size(), 1), 4, kMaxPortions);
    members_.resize(request_.families.size());
    for (auto first = demands.begin(); first != demands.end();) {
      auto last = std::find_if(first, demands.end(),
                               [first](const Demand& d) { return !same_sources(*first, d); });
      HPCORE_RETURN_IF_ERROR(deal(&*first, static_cast<size_t>(last - first)));
      first = last;
    }
    std::vector<PlannedPull> pulls;
    for (const Demand& demand : demands) lay_out(demand, &pulls);
    std::sort(pulls.begin(), pulls.end(), [](const PlannedPull& a, const PlannedPull& b) {
      return std::tie(a.receiver, a.family, a.begin) < std::tie(b.receiver, b.family, b.begin);
    });
    return pulls;
  }

 private:
  // Ranks of each group of a family, made once: first[g] .. first[g + 1] in `ranks`.
  struct Members {
    std::vector<size_t> first;
    std::vector<uint32_t> ranks;
  };

  const Members& members_of(uint32_t family) {
    Members& members = members_[family];
    if (!members.first.empty()) return members;
    const std::vector<uint32_t>& groups = request_.families[family].group_of;
    uint32_t count = 0;
    for (const uint32_t group : groups) {
      if (group != kHoldsNothing) count = std::max(count, group + 1);
    }
    members.first.assign(count + 1, 0);
    for (const uint32_t group : groups) {
      if (group != kHoldsNothing) ++members.first[group + 1];
    }
    std::partial_sum(members.first.begin(), members.first.end(), members.first.begin());
    members.ranks.resize(members.first.back());
    std::vector<size_t> next(members.first.begin(), members.first.end() - 1);
    for (uint32_t rank = 0; rank < groups.size(); ++rank) {
      if (groups[rank] != kHoldsNothing) members.ranks[next[groups[rank]]++] = rank;
    }
    return members;
  }

  // Demands of one replica group, round by round, so that no receiver is served last.
  Status deal(Demand* demands, size_t count) {
    const Members& members = members_of(demands->family);
    const std::vector<uint32_t> ranks(members.ranks.begin() + members.first[demands->group],
                                      members.ranks.begin() + members.first[demands->group + 1]);
    std::vector<uint32_t> sources;
    for (const uint32_t rank : ranks) {
      if (can_serve(request_, rank) && !is_receiver(request_, rank) &&
          std::find(demands->refused.begin(), demands->refused.end(), rank) ==
              demands->refused.end()) {
        sources.push_back(rank);
      }
    }
    if (sources.empty()) return lost(request_, demands->family, ranks, demands->refused);
    uint64_t chunks = 0;
    for (size_t i = 0; i < count; ++i) chunks = std::max(chunks, demands[i].chunks);
    const uint64_t portion_chunks = std::max<uint64_t>(1, chunks_of(chunks, portions_));
    const uint64_t portion_bytes = portion_chunks * request_.chunk_bytes;
    SourcePool pool(request_, portion_bytes, &busy_s_, sources);
    const double intake_s = static_cast<double>(portion_bytes) / request_.rates.intake;
    for (bool left = true; left;) {
      left = false;
      for (size_t i = 0; i < count; ++i) {
        Demand& demand = demands[i];
        if (demand.dealt >= demand.chunks) continue;
        demand.dealt += portion_chunks;
        taken_s_[demand.receiver] += intake_s;
        pool.deal(demand.receiver, taken_s_[demand.receiver], &demand.shares);
        left = left || demand.dealt < demand.chunks;
      }
    }
    for (size_t i = 0; i < count; ++i) demands[i].dealt = portion_chunks;  // for lay_out
    return {};
  }

  // Shares as intervals. By rank, but beginning with the second: a source digests the part that
  // another one is read for, so each chunk proves that two replicas agree.
  void lay_out(const Demand& demand, std::vector<PlannedPull>* pulls) const {
    std::vector<Share> shares = demand.shares;
    std::sort(shares.begin(), shares.end(),
              [](const Share& a, const Share& b) { return a.source < b.source; });
    if (shares.size() > 1) std::rotate(shares.begin(), shares.begin() + 1, shares.end());
    size_t interval = 0;
    uint64_t at = demand.intervals.empty() ? 0 : demand.intervals[0].begin;
    for (const Share& share : shares) {
      uint64_t left = share.portions * demand.dealt * request_.chunk_bytes;
      while (left > 0 && interval < demand.intervals.size()) {
        const uint64_t end = std::min(at + left, demand.intervals[interval].end);
        pulls->push_back({demand.receiver, share.source, demand.family, at, end});
        left -= std::min(left, chunks_of(end - at, request_.chunk_bytes) * request_.chunk_bytes);
        at = end;
        if (at == demand.intervals[interval].end && ++interval < demand.intervals.size()) {
          at = demand.intervals[interval].begin;
        }
      }
    }
  }

  const PlanRequest& request_;
  std::vector<double> busy_s_;   // by rank, as a source
  std::vector<double> taken_s_;  // by rank, as a receiver
  std::vector<Members> members_;
  uint64_t portions_ = kMaxPortions;
};

std::vector<Demand> demands_of(const PlanRequest& request, std::vector<Remaining> remaining) {
  for (Remaining& part : remaining) std::sort(part.refused.begin(), part.refused.end());
  std::sort(remaining.begin(), remaining.end(), [](const Remaining& a, const Remaining& b) {
    return std::tie(a.receiver, a.family, a.refused, a.begin) <
           std::tie(b.receiver, b.family, b.refused, b.begin);
  });
  std::vector<Demand> demands;
  for (Remaining& part : remaining) {
    if (part.begin >= part.end) continue;
    if (demands.empty() || demands.back().receiver != part.receiver ||
        demands.back().family != part.family || demands.back().refused != part.refused) {
      Demand demand;
      demand.receiver = part.receiver;
      demand.family = part.family;
      demand.group = request.families[part.family].group_of[part.receiver];
      demand.refused = std::move(part.refused);
      demands.push_back(std::move(demand));
    }
    demands.back().intervals.push_back({part.begin, part.end});
    demands.back().chunks += chunks_of(part.end - part.begin, request.chunk_bytes);
  }
  return demands;
}

}  // namespace

Result<std::vector<PlannedPull>> plan_transfer(const PlanRequest& request) {
  HPCORE_RETURN_IF_ERROR(check_request(request));
  std::vector<Remaining> all;
  const std::vector<uint64_t> sums = family_bytes(request);
  for (const uint32_t receiver : request.receivers) {
    for (uint32_t family = 0; family < request.families.size(); ++family) {
      const uint64_t bytes = bytes_of(request, sums, family, receiver);
      if (bytes > 0) all.push_back({receiver, family, 0, bytes, {}});
    }
  }
  return Planner(request).run(demands_of(request, std::move(all)));
}

Result<std::vector<PlannedPull>> replan_transfer(const PlanRequest& request,
                                                 std::vector<Remaining> remaining) {
  HPCORE_RETURN_IF_ERROR(check_request(request));
  HPCORE_RETURN_IF_ERROR(check_remaining(request, remaining));
  return Planner(request).run(demands_of(request, std::move(remaining)));
}

}  // namespace hpcore::state
