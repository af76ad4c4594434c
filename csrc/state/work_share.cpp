#include "state/work_share.hpp"

#include <algorithm>
#include <tuple>

#include "state/exposure.hpp"

namespace hpcore::state {
namespace {

constexpr size_t kEnoughMeasured = 3;
constexpr double kQuickRate = 2000;  // chunks a second: whoever gives these does not lag
// A chunk is not taken away sooner: shorter gaps are the scheduler's.
constexpr auto kLeastPatience = std::chrono::milliseconds(20);

}  // namespace

WorkShare::WorkShare(uint64_t chunks, std::vector<std::vector<ChunkRange>> planned,
                     double lag_factor)
    : chunks_(chunks), lag_factor_(lag_factor), sources_(planned.size()) {
  for (size_t i = 0; i < planned.size(); ++i) {
    sources_[i].own = std::move(planned[i]);
    std::reverse(sources_[i].own.begin(), sources_[i].own.end());  // the next one at the back
    for (const ChunkRange& range : sources_[i].own) sources_[i].left += range.end - range.begin;
    left_ += sources_[i].left;
  }
}

void WorkShare::in(size_t source) {
  const std::scoped_lock lock(mutex_);
  sources_[source].usable = true;
}

void WorkShare::out(size_t source) {
  const std::scoped_lock lock(mutex_);
  sources_[source].usable = false;
}

bool WorkShare::usable(size_t source) const {
  const std::scoped_lock lock(mutex_);
  return sources_[source].usable;
}

bool WorkShare::lagging(size_t source) const {
  const std::scoped_lock lock(mutex_);
  return slow(sources_[source]);
}

uint64_t WorkShare::moved() const {
  const std::scoped_lock lock(mutex_);
  return moved_;
}

uint64_t WorkShare::publisher(uint64_t chunk) const {
  return publisher_of(chunk, chunks_, sources_.size());
}

double WorkShare::best_rate(const Source& source) const {
  const auto end = source.rates.begin() + std::min(source.measured, kWindow);
  return source.measured == 0 ? 0 : *std::max_element(source.rates.begin(), end);
}

double WorkShare::best_rate_of_all() const {
  double best = 0;
  for (const Source& source : sources_) {
    if (source.usable) best = std::max(best, best_rate(source));
  }
  return best;
}

bool WorkShare::slow(const Source& source) const {
  const double rate = best_rate(source);
  return source.measured >= kEnoughMeasured && rate < kQuickRate &&
         rate * lag_factor_ < best_rate_of_all();
}

bool WorkShare::lags(const Source& source) const {
  return slow(source) && (done_ < source.probe_at || source.active > 0);
}

void WorkShare::measure(Source& source, double seconds) {
  const bool lagged = lags(source);
  const double rate = 1 / std::max(seconds, 1e-9);
  if (lagged && rate * lag_factor_ >= best_rate_of_all()) source.measured = 0;  // it recovered
  source.rates[source.measured++ % kWindow] = rate;
  if (!lagged && !slow(source)) return;
  source.probe_at = done_ + source.probe_step;
  source.probe_step *= 2;
}

// Few readers first; then one that has work of its own left; then the one with most of it.
size_t WorkShare::choose() const {
  size_t chosen = sources_.size();
  auto key = [this](const Source& s) {
    return std::tuple(lags(s), s.active, s.left == 0, -static_cast<double>(s.left));
  };
  for (size_t i = 0; i < sources_.size(); ++i) {
    if (!sources_[i].usable) continue;
    if (chosen == sources_.size() || key(sources_[i]) < key(sources_[chosen])) chosen = i;
  }
  return chosen;
}

uint64_t WorkShare::take_own(Source& source) {
  ChunkRange& range = source.own.back();
  const uint64_t chunk = range.begin++;
  if (range.begin == range.end) source.own.pop_back();
  --source.left;
  return chunk;
}

// From the part that would end last: of a source that is out, that lags, that has most left. From
// its far end, unless the thief digests that chunk itself and the near one proves more.
uint64_t WorkShare::steal(size_t thief) {
  auto key = [this](const Source& s) { return std::tuple(s.left > 0, !s.usable, lags(s), s.left); };
  Source& victim = *std::max_element(
      sources_.begin(), sources_.end(),
      [&key](const Source& one, const Source& other) { return key(one) < key(other); });
  ++moved_;
  const uint64_t far = victim.own.front().end - 1;
  const uint64_t near = victim.own.back().begin;
  if (publisher(far) == thief && publisher(near) != thief) return take_own(victim);
  if (--victim.own.front().end == victim.own.front().begin) victim.own.erase(victim.own.begin());
  --victim.left;
  return far;
}

WorkShare::Answer WorkShare::take(Task* task) {
  const std::scoped_lock lock(mutex_);
  if (left_ == 0) return Answer::kNothingLeft;
  size_t source = choose();
  if (source == sources_.size()) return Answer::kNoSource;
  if (!loose_.empty()) {
    const Task given_back = loose_.back();
    loose_.pop_back();
    for (size_t i = 0; source == given_back.source && i < sources_.size(); ++i) {
      if (i != given_back.source && sources_[i].usable && !lags(sources_[i])) source = i;
    }
    *task = {given_back.chunk, source};
    ++moved_;
  } else {
    *task = {sources_[source].left > 0 ? take_own(sources_[source]) : steal(source), source};
  }
  --left_;
  ++sources_[source].active;
  return Answer::kTask;
}

void WorkShare::finished(const Task& task, double seconds) {
  const std::scoped_lock lock(mutex_);
  ++done_;
  measure(sources_[task.source], seconds);
  --sources_[task.source].active;
}

void WorkShare::failed(const Task& task) {
  const std::scoped_lock lock(mutex_);
  sources_[task.source].usable = false;
  --sources_[task.source].active;
  loose_.push_back(task);
  ++left_;
}

void WorkShare::too_slow(const Task& task, double seconds) {
  const std::scoped_lock lock(mutex_);
  Source& source = sources_[task.source];
  --source.active;
  source.measured = 0;
  for (size_t i = 0; i < kEnoughMeasured; ++i) source.rates[source.measured++] = 0.5 / seconds;
  source.probe_at = done_ + source.probe_step;
  source.probe_step *= 2;
  loose_.push_back(task);
  ++left_;
}

Clock::duration WorkShare::patience(size_t source) const {
  const std::scoped_lock lock(mutex_);
  double other = 0;
  for (size_t i = 0; i < sources_.size(); ++i) {
    if (i != source && sources_[i].usable) other = std::max(other, best_rate(sources_[i]));
  }
  if (other <= 0) return Clock::duration::max();
  const std::chrono::duration<double> expected(lag_factor_ / other);
  return std::max<Clock::duration>(kLeastPatience,
                                   std::chrono::duration_cast<Clock::duration>(expected));
}

}  // namespace hpcore::state
