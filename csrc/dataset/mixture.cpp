#include "dataset/mixture.hpp"

#include <algorithm>
#include <string>

#include "dataset/permutation.hpp"

namespace hpcore::dataset {
namespace {

Status check_phase(const MixtureOrder::Phase& phase, std::span<const uint64_t> counts,
                   uint64_t previous, bool is_first) {
  const std::string where = "the phase at position " + std::to_string(phase.first);
  if (is_first ? phase.first != 0 : phase.first <= previous) {
    return {Code::kInvalid, where +
                                " is out of order: the first begins at 0, each other after "
                                "the one before"};
  }
  if (phase.weights.size() != counts.size()) {
    return {Code::kInvalid, where + " has " + std::to_string(phase.weights.size()) +
                                " weights for " + std::to_string(counts.size()) + " members"};
  }
  for (size_t i = 0; i < counts.size(); ++i) {
    if (phase.weights[i] > 0 && counts[i] == 0) {
      return {Code::kInvalid,
              where + " gives a weight to member " + std::to_string(i) + ", which has no sample"};
    }
  }
  return {};
}

}  // namespace

Result<MixtureOrder> MixtureOrder::make(std::vector<uint64_t> counts, std::span<const Phase> phases,
                                        uint64_t seed, bool shuffle) {
  if (phases.empty()) return Status(Code::kInvalid, "a mixture needs at least one phase");
  for (const uint64_t count : counts) {
    if (count > Permutation::kMaxCount) {
      return Status(Code::kInvalid,
                    "a member has " + std::to_string(count) + " samples; the limit is 2^62");
    }
  }
  MixtureOrder order;
  order.shuffle_ = shuffle;
  std::vector<uint64_t> before(counts.size(), 0);
  for (size_t i = 0; i < phases.size(); ++i) {
    const uint64_t previous = i == 0 ? 0 : phases[i - 1].first;
    HPCORE_RETURN_IF_ERROR(check_phase(phases[i], counts, previous, i == 0));
    Result<Interleave> turns = Interleave::make(phases[i].weights);
    HPCORE_RETURN_IF_ERROR(turns.status());
    if (i > 0) {
      const Stretch& last = order.stretches_.back();
      for (uint32_t member = 0; member < counts.size(); ++member) {
        before[member] += last.turns.count(member, phases[i].first - last.first);
      }
    }
    order.stretches_.push_back({phases[i].first, std::move(turns.value()), before});
  }
  for (uint64_t member = 0; member < counts.size(); ++member) {
    order.seeds_.push_back(member_seed(seed, member));
  }
  order.counts_ = std::move(counts);
  return order;
}

const MixtureOrder::Stretch& MixtureOrder::stretch_of(uint64_t position) const {
  const auto later =
      std::upper_bound(stretches_.begin(), stretches_.end(), position,
                       [](uint64_t at, const Stretch& stretch) { return at < stretch.first; });
  return *(later - 1);
}

MixtureDraw MixtureOrder::at(uint64_t position) const {
  const Stretch& stretch = stretch_of(position);
  const Interleave::Turn turn = stretch.turns.at(position - stretch.first);
  const uint64_t nth = stretch.before[turn.party] + turn.nth;
  const uint64_t count = counts_[turn.party];
  const uint64_t epoch = nth / count;
  uint64_t sample = nth % count;
  if (shuffle_) {
    sample = Permutation::make(count, seeds_[turn.party], epoch).value().at(sample);
  }
  return {turn.party, nth, epoch, sample};
}

uint64_t MixtureOrder::count(uint32_t member, uint64_t positions) const {
  if (positions == 0) return 0;
  const Stretch& stretch = stretch_of(positions - 1);
  return stretch.before[member] + stretch.turns.count(member, positions - stretch.first);
}

}  // namespace hpcore::dataset
