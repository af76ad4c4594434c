// How a pull knows that what it read is right.
#include <poll.h>

#include <algorithm>

#include "state/pull.hpp"
#include "state/threads.hpp"

namespace hpcore::state {
namespace {

constexpr auto kLook = std::chrono::milliseconds(20);  // at Python's signals and at silent sources
// Whoever publishes nothing for this long, and for a part of the time that the reading took, is
// asked no more: another source's bytes are the proof.
constexpr auto kSilence = std::chrono::milliseconds(50);
// Nobody rings from another host: so often its digests are fetched while some are missing.
constexpr auto kRemoteLook = std::chrono::milliseconds(2);
constexpr int kSilencePart = 4;

}  // namespace

bool Pull::published(uint64_t chunk, Digest128* digest) {
  const size_t from = publisher(chunk);
  const uint64_t entry = chunk - first_digested(from, chunks_, sources_.size());
  const Exposure& exposure = sources_[from].exposure;
  return exposure.area() != nullptr && exposure.digest(options_.generation, entry, digest);
}

bool Pull::agrees_on_layout(size_t index) {
  Source& source = sources_[index];
  if (source.layout_agreed.load(std::memory_order_acquire)) return true;
  const Layout mine{regions_.layout_word(), regions_.bytes(), chunk_bytes_, sources_.size()};
  Layout theirs;
  if (source.exposure.area() == nullptr) return false;
  if (!source.exposure.layout(options_.generation, &theirs)) return false;
  if (!(mine == theirs)) {
    fail({Code::kMismatch,
          "the source in slot " + std::to_string(options_.sources[index].slot) + " publishes " +
              std::to_string(theirs.total_bytes) + " bytes in chunks of " +
              std::to_string(theirs.chunk_bytes) + " from " + std::to_string(theirs.sources) +
              " sources; this process expects " + std::to_string(mine.total_bytes) +
              " bytes in chunks of " + std::to_string(mine.chunk_bytes) + " from " +
              std::to_string(mine.sources)});
    return false;
  }
  source.layout_agreed.store(true, std::memory_order_release);
  return true;
}

Pull::Verdict Pull::compare(uint64_t chunk) {
  Digest128 digest;
  if (!published(chunk, &digest) || !agrees_on_layout(publisher(chunk))) return Verdict::kUnknown;
  return digest == digests_[chunk] ? Verdict::kMatches : Verdict::kDiffers;
}

void Pull::settle(uint64_t chunk) {
  switch (compare(chunk)) {
    case Verdict::kMatches:
      proved_.fetch_add(1, std::memory_order_relaxed);
      return;
    case Verdict::kDiffers:
      if (fetch_again(chunk)) proved_.fetch_add(1, std::memory_order_relaxed);
      return;
    case Verdict::kUnknown: {
      const std::scoped_lock lock(mutex_);
      pending_.push_back(chunk);
      return;
    }
  }
}

// The other sources first, at last once more the one that was read before.
bool Pull::fetch_again(uint64_t chunk) {
  const size_t before = read_from_[chunk];
  std::string tried = std::to_string(options_.sources[before].slot);
  refetched_.fetch_add(1, std::memory_order_relaxed);
  for (const size_t source : others_first(before)) {
    if (stopped()) return false;
    if (!work_->usable(source)) continue;
    if (read_from(source, chunk, Clock::duration::max()) != Reading::kDone) continue;
    if (compare(chunk) == Verdict::kMatches) return true;
    tried += ", " + std::to_string(options_.sources[source].slot);
  }
  if (!stopped()) fail(corrupt(chunk, tried));
  return false;
}

bool Pull::any_pending_published() {
  return std::any_of(pending_.begin(), pending_.end(), [this](uint64_t chunk) {
    Digest128 ignored;
    return published(chunk, &ignored);
  });
}

bool Pull::gone(size_t index) const {
  pollfd process{sources_[index].process.get(), POLLIN, 0};
  return process.fd >= 0 && poll(&process, 1, 0) == 1;
}

bool Pull::silent(size_t index) {
  const Clock::duration limit = std::max<Clock::duration>(kSilence, reading_ / kSilencePart);
  return sources_[index].exposure.area() == nullptr || gone(index) ||
         Clock::now() - sources_[index].last_news > limit;
}

// Moves the chunks whose digest is not to be waited for out of `waiting`.
std::vector<uint64_t> Pull::take_silent(std::vector<uint64_t>* waiting) {
  std::vector<bool> is_silent(sources_.size());
  for (size_t i = 0; i < sources_.size(); ++i) is_silent[i] = silent(i);
  const auto first = std::stable_partition(waiting->begin(), waiting->end(), [&](uint64_t chunk) {
    return !is_silent[publisher(chunk)];
  });
  std::vector<uint64_t> taken(first, waiting->end());
  waiting->erase(first, waiting->end());
  return taken;
}

bool Pull::fetch_remote_digests() {
  std::vector<bool> awaited(sources_.size());
  for (const uint64_t chunk : pending_) awaited[publisher(chunk)] = true;
  bool any = false;
  for (size_t i = 0; i < sources_.size(); ++i) {
    if (!awaited[i] || sources_[i].remote == nullptr || !work_->usable(i)) continue;
    Status status = sources_[i].remote->refresh([this] { return stopped(); });
    if (status.ok()) {
      any = true;
    } else if (status.code() != Code::kAborted) {
      lose(i, std::move(status));
    }
  }
  bool usable = false;
  for (size_t i = 0; i < sources_.size(); ++i) usable = usable || work_->usable(i);
  if (!usable) fail(no_source_left());
  return any;
}

// One round: false when the script was interrupted.
bool Pull::await_digests() {
  const bool remote = fetch_remote_digests();
  const TimePoint until = std::min<TimePoint>(
      deadline_, Clock::now() + (remote ? Clock::duration(kRemoteLook) : Clock::duration(kLook)));
  if (!doorbell_->wait([this] { return any_pending_published() || stopped(); }, until) &&
      options_.interrupted && options_.interrupted()) {
    fail({Code::kAborted, "pulling the state was interrupted"});
    return false;
  }
  std::vector<uint64_t> waiting;
  waiting.swap(pending_);
  for (const uint64_t chunk : waiting) {
    Digest128 ignored;
    if (published(chunk, &ignored)) sources_[publisher(chunk)].last_news = Clock::now();
    settle(chunk);
  }
  const std::vector<uint64_t> again = take_silent(&pending_);
  if (again.empty()) return true;
  std::atomic<size_t> next{0};
  run_on_threads(useful_threads(again.size()), [&] {
    for (size_t i = next.fetch_add(1); i < again.size(); i = next.fetch_add(1)) {
      prove_again(again[i]);
    }
  });
  return true;
}

// All sources: those that keep up, those that lag, at last the one that was read before.
std::vector<size_t> Pull::others_first(size_t before) const {
  std::vector<size_t> order;
  for (size_t i = 1; i < sources_.size(); ++i) order.push_back((before + i) % sources_.size());
  std::stable_partition(order.begin(), order.end(),
                        [this](size_t source) { return !work_->lagging(source); });
  order.push_back(before);
  return order;
}

// By what other sources hold: two that agree are enough, if one of them serves this generation. The
// one that was read before is asked once more only if no other is left, which proves the copy, not
// the replica, as any digest of its own would.
void Pull::prove_again(uint64_t chunk) {
  const size_t before = read_from_[chunk];
  std::vector<std::pair<size_t, Digest128>> seen{{before, digests_[chunk]}};
  auto stop = [this] { return stopped(); };
  for (const size_t source : others_first(before)) {
    if (!work_->usable(source) || (source == before && seen.size() > 1)) continue;
    Digester digester;
    Status status =
        sources_[source].memory->digest(chunk * chunk_bytes_, chunk_bytes(chunk), &digester, stop);
    if (status.code() == Code::kAborted) break;
    if (!status.ok()) {
      lose(source, std::move(status));
      continue;
    }
    const Digest128 digest = digester.finish();
    for (const auto& [other, its] : seen) {
      if (its != digest || !(agrees_on_layout(other) || agrees_on_layout(source))) continue;
      if (digests_[chunk] != digest) {  // it was the first one that differed
        refetched_.fetch_add(1, std::memory_order_relaxed);
        if (read_from(source, chunk, Clock::duration::max()) != Reading::kDone) continue;
        if (digests_[chunk] != digest) continue;
      }
      reread_.fetch_add(1, std::memory_order_relaxed);
      proved_.fetch_add(1, std::memory_order_relaxed);
      return;
    }
    seen.emplace_back(source, digest);
  }
  std::string tried;
  for (const auto& [source, digest] : seen) {
    tried += (tried.empty() ? "" : ", ") + std::to_string(options_.sources[source].slot);
    if (digest != seen[0].second && !stopped()) return fail(corrupt(chunk, tried));
  }
  const std::scoped_lock lock(mutex_);
  pending_.push_back(chunk);
}

}  // namespace hpcore::state
