// Purpose: one run of StateReceiver::pull: what it has read, what it still has to compare, what
// went wrong. pull.cpp reads, pull_proof.cpp compares, pull_outcome.cpp says how it ended.
// Threads: fetch_chunks() and prove_again() run on several threads at once; the rest on the
// caller's.
// Ownership: lives for one pull.
#pragma once

#include <mutex>

#include "base/fd.hpp"
#include "state/receiver.hpp"
#include "state/remote_exposure.hpp"
#include "state/work_share.hpp"

namespace hpcore::state {

class Pull {
 public:
  Pull(const ReceiverOptions& options, const Revocation& revocation, TimePoint deadline,
       std::atomic<uint64_t>* progress_bytes);
  Result<PullStats> run();

 private:
  enum class Verdict { kMatches, kDiffers, kUnknown };  // kUnknown: its digest is not published yet
  enum class Reading { kDone, kFailed, kTooSlow, kStopped };

  struct Source {
    transport::RegionMap regions;
    Exposure exposure{nullptr};
    std::unique_ptr<RemoteExposure> remote;  // of a source on another host
    std::unique_ptr<transport::RemoteMemory> memory;
    Fd process;  // a pidfd, where the kernel has them
    std::atomic<bool> layout_agreed{false};
    std::atomic<uint64_t> bytes{0};
    TimePoint last_news{};  // when a digest of its was seen last; the pulling thread's
    Status trouble;         // why it is not usable; guarded by mutex_
  };

  // --- pull.cpp
  Status open_sources();
  Status open_source(size_t index);
  Status open_remote_source(size_t index);
  // --- pull_devices.cpp
  Status open_device_source(size_t index);
  Result<std::unique_ptr<transport::RemoteMemory>> open_cuda_ipc(size_t index);
  Status open_exposure(size_t index, std::unique_ptr<transport::RemoteMemory> memory);
  // --- pull.cpp
  Result<std::vector<std::vector<ChunkRange>>> planned() const;
  void fetch_chunks(WorkShare* work);
  Reading read_from(size_t source, uint64_t chunk, Clock::duration patience);
  void lose(size_t source, Status trouble);
  unsigned useful_threads(uint64_t chunks) const;

  // --- pull_proof.cpp
  void settle(uint64_t chunk);  // compares, reads again, or puts it on the pending list
  Verdict compare(uint64_t chunk);
  bool agrees_on_layout(size_t source);  // it serves this generation, in this layout
  bool fetch_again(uint64_t chunk);
  bool await_digests();
  bool fetch_remote_digests();  // whether any can be waited for
  bool any_pending_published();
  std::vector<uint64_t> take_silent(std::vector<uint64_t>* waiting);
  void prove_again(uint64_t chunk);
  [[nodiscard]] std::vector<size_t> others_first(size_t before) const;
  bool silent(size_t source);
  [[nodiscard]] bool gone(size_t source) const;

  // --- pull_outcome.cpp
  void fail(Status status);
  Status no_source_left();
  Status corrupt(uint64_t chunk, const std::string& tried);
  Status deadline_passed();
  Result<PullStats> outcome(TimePoint begin);

  [[nodiscard]] bool revoked() const { return revocation_.revoked(options_.generation); }
  [[nodiscard]] bool stopped() const {
    return failed_.load(std::memory_order_acquire) || revoked() || Clock::now() >= deadline_;
  }
  [[nodiscard]] uint64_t chunk_bytes(uint64_t chunk) const {
    return std::min(chunk_bytes_, regions_.bytes() - chunk * chunk_bytes_);
  }
  [[nodiscard]] size_t publisher(uint64_t chunk) const {
    return publisher_of(chunk, chunks_, sources_.size());
  }
  bool published(uint64_t chunk, Digest128* digest);

  const ReceiverOptions& options_;
  const Revocation& revocation_;
  const TimePoint deadline_;
  std::atomic<uint64_t>* progress_bytes_;
  Doorbell* doorbell_;
  transport::RegionMap regions_;
  uint64_t chunk_bytes_;
  uint64_t chunks_;
  std::vector<Source> sources_;
  std::unique_ptr<WorkShare> work_;
  std::vector<Digest128> digests_;   // of what was read, by chunk
  std::vector<uint32_t> read_from_;  // source, by chunk
  Clock::duration reading_{};        // how long it took to read all
  std::atomic<uint64_t> proved_{0};  // chunks that match their digest
  std::atomic<uint64_t> refetched_{0};
  std::atomic<uint64_t> reread_{0};
  std::atomic<bool> failed_{false};
  std::mutex mutex_;
  std::vector<uint64_t> pending_;  // guarded by mutex_ while threads run
  Status failure_;                 // the first one; guarded by mutex_
  std::string notes_;              // guarded by mutex_
};

}  // namespace hpcore::state
