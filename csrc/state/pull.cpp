#include "state/pull.hpp"

#include <sys/syscall.h>

#include <algorithm>

#include "state/threads.hpp"

namespace hpcore::state {
namespace {

// A source that is found dead ends the generation; the agent says so within milliseconds, at worst
// within this.
constexpr auto kRevocationGrace = std::chrono::seconds(1);
constexpr unsigned kMostLinkThreads = 16;

std::string bytes_text(uint64_t begin, uint64_t end) {
  return std::to_string(begin) + " to " + std::to_string(end);
}

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

// A source that cannot be reached is out; a layout that differs is everybody's error.
Status Pull::open_source(size_t index) {
  const SourcePlace& place = options_.sources[index];
  Source& source = sources_[index];
  if (!place.unreachable.empty()) {
    source.trouble = Status(Code::kUnsupported, place.unreachable);
    return {};
  }
  if (place.on_device()) return open_device_source(index);
  if (!place.remote_address.empty()) return open_remote_source(index);
  source.regions = transport::RegionMap(place.regions);
  source.exposure = Exposure(place.exposure_area);
  HPCORE_RETURN_IF_ERROR(
      regions_.same_sizes(source.regions, "the source in slot " + std::to_string(place.slot)));
  source.process = Fd(static_cast<int>(syscall(SYS_pidfd_open, place.pid, 0)));
  const transport::RemoteProcess process{
      place.pid,           &source.regions, source.exposure.staging(),
      options_.generation, place.arenas,    options_.mappings.get()};
  std::string why_not;
  auto memory = transport::open_remote_memory(process, options_.method, &why_not);
  if (!why_not.empty()) notes_ += (notes_.empty() ? "" : "; ") + why_not;
  if (!memory.ok()) {
    source.trouble = memory.status();
    return {};
  }
  source.memory = std::move(memory.value());
  if (!place.pace.none()) {
    source.memory = std::make_unique<transport::PacedMemory>(std::move(source.memory), place.pace);
  }
  work_->in(index);
  return {};
}

// An address that does not fit is an error; a host that does not answer is out.
Status Pull::open_remote_source(size_t index) {
  const SourcePlace& place = options_.sources[index];
  Source& source = sources_[index];
  if (options_.fabric == nullptr) {
    return {Code::kInvalid, "source " + std::to_string(place.slot) +
                                " is on another host, and this receiver has no fabric"};
  }
  const uint64_t digests = first_digested(index + 1, chunks_, sources_.size()) -
                           first_digested(index, chunks_, sources_.size());
  auto opened = RemoteExposure::open(options_.fabric, place.remote_address, options_.generation,
                                     regions_, digests);
  if (!opened.ok()) return opened.status();
  source.remote = std::move(opened.value());
  source.exposure = Exposure(source.remote->area());
  source.memory = source.remote->take_memory();
  if (!place.pace.none()) {
    source.memory = std::make_unique<transport::PacedMemory>(std::move(source.memory), place.pace);
  }
  source.trouble = source.remote->refresh([this] { return stopped(); });
  if (source.trouble.ok()) work_->in(index);
  return {};
}

Status Pull::open_sources() {
  if (sources_.empty()) return {Code::kInvalid, "a pull needs at least one source"};
  Result<std::vector<std::vector<ChunkRange>>> plan = planned();
  if (!plan.ok()) return plan.status();
  const bool links = std::any_of(
      options_.sources.begin(), options_.sources.end(),
      [](const SourcePlace& at) { return !at.remote_address.empty() || !at.nccl_address.empty(); });
  work_ = std::make_unique<WorkShare>(chunks_, std::move(plan.value()), links ? 8 : 4);
  for (size_t i = 0; i < sources_.size(); ++i) HPCORE_RETURN_IF_ERROR(open_source(i));
  return {};
}

// The plan in whole chunks: each belongs to the share that holds its first byte.
Result<std::vector<std::vector<ChunkRange>>> Pull::planned() const {
  const size_t count = sources_.size();
  std::vector<std::vector<ChunkRange>> shares(count);
  if (options_.plan.empty()) {
    for (size_t d = 0; d < count; ++d) {
      const ChunkRange block{first_digested(d, chunks_, count),
                             first_digested(d + 1, chunks_, count)};
      if (block.begin < block.end) shares[(d + 1) % count].push_back(block);
    }
    return shares;
  }
  uint64_t expected = 0;
  for (const PlannedShare& share : options_.plan) {
    if (share.source >= count || share.begin != expected || share.end <= share.begin) {
      return Status(Code::kInvalid, "the plan's share of bytes " +
                                        bytes_text(share.begin, share.end) + " from source " +
                                        std::to_string(share.source) + " of " +
                                        std::to_string(count) + " does not go on at byte " +
                                        std::to_string(expected));
    }
    expected = share.end;
    const ChunkRange range{chunk_count(share.begin, chunk_bytes_),
                           chunk_count(share.end, chunk_bytes_)};
    if (range.begin < range.end) shares[share.source].push_back(range);
  }
  if (expected != regions_.bytes()) {
    return Status(Code::kInvalid, "the plan ends at byte " + std::to_string(expected) + " of " +
                                      std::to_string(regions_.bytes()));
  }
  return shares;
}

void Pull::lose(size_t index, Status trouble) {
  work_->out(index);
  const std::scoped_lock lock(mutex_);
  sources_[index].trouble = std::move(trouble);
}

Pull::Reading Pull::read_from(size_t index, uint64_t chunk, Clock::duration patience) {
  Source& source = sources_[index];
  if (!source.memory) return Reading::kFailed;
  const TimePoint begin = Clock::now();
  bool slow = false;
  auto stop = [&] {
    slow = slow || (patience < Clock::duration::max() && Clock::now() - begin > patience);
    return slow || stopped();
  };
  Digester digester;
  Status status = source.memory->read_digested(chunk * chunk_bytes_, chunk_bytes(chunk), regions_,
                                               &digester, stop);
  if (status.code() == Code::kAborted) {
    return slow && !stopped() ? Reading::kTooSlow : Reading::kStopped;
  }
  if (!status.ok()) {
    lose(index, std::move(status));
    return Reading::kFailed;
  }
  digests_[chunk] = digester.finish();
  read_from_[chunk] = static_cast<uint32_t>(index);
  source.bytes.fetch_add(chunk_bytes(chunk), std::memory_order_relaxed);
  return Reading::kDone;
}

void Pull::fetch_chunks(WorkShare* work) {
  WorkShare::Task task;
  while (!stopped()) {
    const WorkShare::Answer answer = work->take(&task);
    if (answer == WorkShare::Answer::kNoSource) fail(no_source_left());
    if (answer != WorkShare::Answer::kTask) return;
    const TimePoint begin = Clock::now();
    const Reading reading = read_from(task.source, task.chunk, work->patience(task.source));
    const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    switch (reading) {
      case Reading::kDone:
        work->finished(task, seconds);
        progress_bytes_->fetch_add(chunk_bytes(task.chunk), std::memory_order_relaxed);
        settle(task.chunk);
        break;
      case Reading::kFailed:
        work->failed(task);
        break;
      case Reading::kTooSlow:
        work->too_slow(task, seconds);
        break;
      case Reading::kStopped:
        return;
    }
  }
}

unsigned Pull::useful_threads(uint64_t chunks) const {
  // Over a network a thread mostly waits: two for each link keep it busy.
  const auto remote = static_cast<unsigned>(
      std::count_if(sources_.begin(), sources_.end(),
                    [](const Source& source) { return source.remote != nullptr; }));
  const unsigned wanted = std::max({options_.threads, 1u, std::min(2 * remote, kMostLinkThreads)});
  return static_cast<unsigned>(std::min<uint64_t>(wanted, chunks));
}

Result<PullStats> Pull::run() {
  const TimePoint begin = Clock::now();
  HPCORE_RETURN_IF_ERROR(open_sources());
  if (chunks_ > 0) {
    run_on_threads(useful_threads(chunks_), [this] { fetch_chunks(work_.get()); });
  }
  reading_ = Clock::now() - begin;
  for (Source& source : sources_) source.last_news = Clock::now();
  while (!pending_.empty() && !stopped() && await_digests()) {
  }
  if (failed_.load() && failure_.code() == Code::kPeerDead) {
    doorbell_->wait([this] { return revoked(); },
                    std::min(deadline_, Clock::now() + kRevocationGrace));
  }
  return outcome(begin);
}

}  // namespace hpcore::state
