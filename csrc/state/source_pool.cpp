#include "state/source_pool.hpp"

#include <algorithm>

namespace hpcore::state {
namespace {

// More connections than this cost a receiver more than they bring.
constexpr size_t kMaxSources = 64;

uint32_t label(const RankFacts& rank, Nearness level) {
  return level == kSameProcess ? rank.process : level == kSameNode ? rank.node : rank.rack;
}

}  // namespace

Nearness nearness(const RankFacts& one, const RankFacts& other) {
  if (one.rack != other.rack) return kElsewhere;
  if (one.node != other.node) return kSameRack;
  return one.process == other.process ? kSameProcess : kSameNode;
}

SourcePool::SourcePool(const PlanRequest& request, uint64_t portion_bytes,
                       std::vector<double>* busy_s, const std::vector<uint32_t>& sources)
    : request_(request), portion_bytes_(portion_bytes), busy_s_(*busy_s) {
  for (const uint32_t source : sources) {
    for (int level = kSameProcess; level < kElsewhere; ++level) {
      near_[level][label(request.ranks[source], Nearness(level))].insert(entry(source));
    }
    all_.insert(entry(source));
  }
}

// At its own best rate: an idle but slow source is not in front of all others for ever.
std::pair<double, uint32_t> SourcePool::entry(uint32_t source) const {
  return {busy_s_[source] + seconds(source, source), source};
}

double SourcePool::seconds(uint32_t receiver, uint32_t source) const {
  const RankFacts& facts = request_.ranks[source];
  const Nearness near = nearness(request_.ranks[receiver], facts);
  double rate = request_.rates.by_nearness[near];
  if (facts.rate_bytes_per_s > 0) rate = std::min(rate, facts.rate_bytes_per_s);
  return static_cast<double>(portion_bytes_) / rate;
}

// Levels come from near to far: a farther source must be done earlier by more than the nearer one's
// portion takes.
void SourcePool::consider(uint32_t receiver, uint32_t source, double taken_s, Choice* best) const {
  const Nearness near = nearness(request_.ranks[receiver], request_.ranks[source]);
  const double portion_s = seconds(receiver, source);
  const double done_s = busy_s_[source] + portion_s;
  const double cost_s = std::max(done_s, taken_s);
  const double lead_s = best->source == kHoldsNothing || best->near == near ? 0 : best->portion_s;
  if (best->source == kHoldsNothing || cost_s < best->cost_s - lead_s) {
    *best = {source, near, portion_s, done_s, cost_s};
  }
}

const SourcePool::Queue* SourcePool::queue(Nearness level, const RankFacts& of) const {
  if (level == kElsewhere) return &all_;
  const auto found = near_[level].find(label(of, level));
  return found == near_[level].end() ? nullptr : &found->second;
}

void SourcePool::move(uint32_t source, double busy_s) {
  const auto before = entry(source);
  busy_s_[source] = busy_s;
  const auto after = entry(source);
  for (int level = kSameProcess; level < kElsewhere; ++level) {
    Queue& queue = near_[level][label(request_.ranks[source], Nearness(level))];
    queue.erase(before);
    queue.insert(after);
  }
  all_.erase(before);
  all_.insert(after);
}

void SourcePool::deal(uint32_t receiver, double taken_s, std::vector<Share>* shares) {
  Choice best;
  if (shares->size() < kMaxSources) {
    for (int level = kSameProcess; level < kNearnesses; ++level) {
      const Queue* waiting = queue(Nearness(level), request_.ranks[receiver]);
      if (waiting == nullptr) continue;
      // The idlest few: with rates of their own, the idlest one need not be done first.
      int looked_at = 0;
      for (auto it = waiting->begin(); it != waiting->end() && looked_at < 4; ++it, ++looked_at) {
        consider(receiver, it->second, taken_s, &best);
      }
    }
  } else {
    for (const Share& share : *shares) {
      consider(receiver, share.source, taken_s, &best);
    }
  }
  move(best.source, best.done_s);
  const auto known = std::find_if(shares->begin(), shares->end(), [&best](const Share& share) {
    return share.source == best.source;
  });
  if (known == shares->end()) {
    shares->push_back({best.source, 1});
  } else {
    ++known->portions;
  }
}

}  // namespace hpcore::state
