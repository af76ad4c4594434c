#include "state/pull.hpp"

#include <algorithm>
#include <cstdio>
#include <set>

#include "state/threads.hpp"

namespace hpcore::state {
namespace {

// A source that is found dead ends the generation; the agent says so within milliseconds, at worst
// within this.
constexpr auto kRevocationGrace = std::chrono::seconds(1);
constexpr auto kInterruptPoll = std::chrono::milliseconds(100);

}  // namespace

Pull::Pull(const ReceiverOptions& options, const Revocation& revocation, TimePoint deadline,
           std::atomic<uint64_t>* progress_bytes)
    : options_(options),
      revocation_(revocation),
      deadline_(deadline),
      progress_bytes_(progress_bytes),
      doorbell_(Exposure(options.exposure_area).receiver_doorbell()),
      regions_(options.regions),
      chunk_bytes_(
          effective_chunk_bytes(options.chunk_bytes, regions_.bytes(), options.sources.size())),
      chunks_(chunk_count(regions_.bytes(), chunk_bytes_)),
      sources_(options.sources.size()),
      digests_(chunks_),
      read_from_(chunks_) {}

Status Pull::open_sources() {
  if (sources_.empty()) return {Code::kInvalid, "a pull needs at least one source"};
  for (size_t i = 0; i < sources_.size(); ++i) {
    const SourcePlace& place = options_.sources[i];
    Source& source = sources_[i];
    source.regions = transport::RegionMap(place.regions);
    source.exposure = Exposure(place.exposure_area);
    HPCORE_RETURN_IF_ERROR(
        regions_.same_sizes(source.regions, "the source in slot " + std::to_string(place.slot)));
    const transport::RemoteProcess process{place.pid, &source.regions, source.exposure.staging(),
                                           options_.generation};
    auto memory = transport::open_remote_memory(process, options_.method);
    if (memory.ok()) {
      source.memory = std::move(memory.value());
      source.usable.store(true);
    } else {
      source.trouble = memory.status();
    }
  }
  return {};
}

void Pull::fail(Status status) {
  const std::scoped_lock lock(mutex_);
  if (failure_.ok()) failure_ = std::move(status);
  failed_.store(true, std::memory_order_release);
}

bool Pull::read_from(size_t index, uint64_t chunk) {
  Source& source = sources_[index];
  if (!source.usable.load(std::memory_order_acquire)) return false;
  const uint64_t begin = chunk * chunk_bytes_;
  const uint64_t end = begin + chunk_bytes(chunk);
  Digester digester;
  std::vector<iovec> pieces;
  const auto arrived = [&](uint64_t offset, uint64_t bytes) {
    pieces.clear();
    regions_.pieces(offset, bytes, &pieces);
    for (const iovec& piece : pieces) digester.update(piece.iov_base, piece.iov_len);
  };
  Status status =
      source.memory->stream(begin, end - begin, regions_, [this] { return stopped(); }, arrived);
  if (!status.ok()) {
    if (status.code() == Code::kAborted) return false;
    const std::scoped_lock lock(mutex_);
    source.trouble = std::move(status);
    source.usable.store(false, std::memory_order_release);
    return false;
  }
  digests_[chunk] = digester.finish();
  read_from_[chunk] = static_cast<uint32_t>(index);
  source.bytes.fetch_add(end - begin, std::memory_order_relaxed);
  return true;
}

bool Pull::fetch(uint64_t chunk) {
  const size_t count = sources_.size();
  for (size_t i = 0; i < count; ++i) {
    if (stopped()) return false;
    if (read_from((chunk + 1 + i) % count, chunk)) return true;
  }
  if (!stopped()) fail(no_source_left(chunk));
  return false;
}

void Pull::fetch_chunks() {
  for (;;) {
    const uint64_t chunk = next_.fetch_add(1, std::memory_order_relaxed);
    if (chunk >= chunks_ || !fetch(chunk)) return;
    progress_bytes_->fetch_add(chunk_bytes(chunk), std::memory_order_relaxed);
    settle(chunk);
  }
}

Pull::Verdict Pull::compare(uint64_t chunk) {
  const size_t publisher = chunk % sources_.size();
  Source& source = sources_[publisher];
  Digest128 published;
  const uint64_t generation = options_.generation;
  if (!source.exposure.digest(generation, chunk / sources_.size(), &published)) {
    return Verdict::kUnknown;
  }
  if (!source.layout_agreed.load(std::memory_order_acquire)) {
    const Layout mine{regions_.layout_word(), regions_.bytes(), chunk_bytes_, sources_.size()};
    Layout theirs;
    if (!source.exposure.layout(generation, &theirs)) return Verdict::kUnknown;
    if (!(mine == theirs)) {
      fail({Code::kMismatch,
            "the source in slot " + std::to_string(options_.sources[publisher].slot) +
                " publishes " + std::to_string(theirs.total_bytes) + " bytes in chunks of " +
                std::to_string(theirs.chunk_bytes) + " from " + std::to_string(theirs.sources) +
                " sources; this process expects " + std::to_string(mine.total_bytes) +
                " bytes in chunks of " + std::to_string(mine.chunk_bytes) + " from " +
                std::to_string(mine.sources)});
      return Verdict::kUnknown;
    }
    source.layout_agreed.store(true, std::memory_order_release);
  }
  return published == digests_[chunk] ? Verdict::kMatches : Verdict::kDiffers;
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
  const size_t count = sources_.size();
  const size_t before = read_from_[chunk];
  std::string tried = std::to_string(options_.sources[before].slot);
  refetched_.fetch_add(1, std::memory_order_relaxed);
  for (size_t i = 1; i <= count; ++i) {
    const size_t source = (before + i) % count;
    if (stopped()) return false;
    if (!read_from(source, chunk)) continue;
    if (compare(chunk) == Verdict::kMatches) return true;
    tried += ", " + std::to_string(options_.sources[source].slot);
  }
  if (!stopped()) fail(corrupt(chunk, tried));
  return false;
}

bool Pull::any_pending_published() {
  return std::any_of(pending_.begin(), pending_.end(), [this](uint64_t chunk) {
    Digest128 ignored;
    const size_t count = sources_.size();
    return sources_[chunk % count].exposure.digest(options_.generation, chunk / count, &ignored);
  });
}

void Pull::await_digests() {
  while (!pending_.empty() && !stopped()) {
    const TimePoint until = std::min(deadline_, Clock::now() + kInterruptPoll);
    if (!doorbell_->wait([this] { return any_pending_published() || stopped(); }, until) &&
        options_.interrupted && options_.interrupted()) {
      fail({Code::kAborted, "pulling the state was interrupted"});
    }
    std::vector<uint64_t> waiting;
    waiting.swap(pending_);
    for (const uint64_t chunk : waiting) settle(chunk);
  }
}

Status Pull::no_source_left(uint64_t chunk) {
  std::string message = "chunk " + std::to_string(chunk) + " of " + std::to_string(chunks_) +
                        " can be read from no source:";
  Code code = Code::kUnsupported;
  const std::scoped_lock lock(mutex_);
  for (size_t i = 0; i < sources_.size(); ++i) {
    const Status& trouble = sources_[i].trouble;
    message += " slot " + std::to_string(options_.sources[i].slot) + ": " + trouble.message() + ";";
    if (trouble.code() != Code::kUnsupported) code = Code::kPeerDead;
  }
  return {code, message};
}

Status Pull::corrupt(uint64_t chunk, const std::string& tried) {
  const uint64_t offset = chunk * chunk_bytes_;
  const size_t publisher = chunk % sources_.size();
  return {Code::kCorrupt,
          "chunk " + std::to_string(chunk) + " (bytes " + std::to_string(offset) + " to " +
              std::to_string(offset + chunk_bytes(chunk)) + " of the state, from region " +
              std::to_string(regions_.region_at(offset)) + " on) matches the digest of slot " +
              std::to_string(options_.sources[publisher].slot) +
              " from no source; read from slots " + tried +
              ". The state changed while it was served, or replicas differ"};
}

Status Pull::deadline_passed() {
  std::set<int> slots;
  for (const uint64_t chunk : pending_)
    slots.insert(options_.sources[chunk % sources_.size()].slot);
  std::string missing;
  for (const int slot : slots) missing += (missing.empty() ? "" : ", ") + std::to_string(slot);
  return {Code::kTimeout,
          "pulling the state timed out: " + std::to_string(progress_bytes_->load()) + " of " +
              std::to_string(regions_.bytes()) + " bytes read, " + std::to_string(pending_.size()) +
              " chunks lack the digests of slots [" + missing + "]"};
}

Result<PullStats> Pull::outcome(TimePoint begin) {
  if (proved_.load() < chunks_) {
    if (revoked()) {
      return Status(Code::kRevoked, "generation " + std::to_string(options_.generation) +
                                        " was revoked while the state was pulled");
    }
    return failed_.load() ? failure_ : deadline_passed();
  }
  PullStats stats;
  stats.bytes = regions_.bytes();
  stats.chunks = chunks_;
  stats.refetched = refetched_.load();
  std::set<std::string> methods;
  for (const Source& source : sources_) {
    stats.bytes_by_source.push_back(source.bytes.load());
    if (source.memory) methods.insert(source.memory->method());
  }
  for (const std::string& method : methods)
    stats.method += (stats.method.empty() ? "" : "+") + method;
  stats.seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  return stats;
}

Result<PullStats> Pull::run() {
  const TimePoint begin = Clock::now();
  HPCORE_RETURN_IF_ERROR(open_sources());
  const uint64_t useful = std::min<uint64_t>(std::max(options_.threads, 1u), chunks_);
  run_on_threads(static_cast<unsigned>(useful), [this] { fetch_chunks(); });
  await_digests();
  if (failed_.load() && failure_.code() == Code::kPeerDead) {
    doorbell_->wait([this] { return revoked(); },
                    std::min(deadline_, Clock::now() + kRevocationGrace));
  }
  return outcome(begin);
}

}  // namespace hpcore::state
