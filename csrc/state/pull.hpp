// Purpose: one run of StateReceiver::pull: what it has read, what it still has to compare, what
// went wrong.
// Threads: fetch_chunks() runs on several threads at once; the rest on the caller's.
// Ownership: lives for one pull.
#pragma once

#include <mutex>

#include "state/receiver.hpp"

namespace hpcore::state {

class Pull {
 public:
  Pull(const ReceiverOptions& options, const Revocation& revocation, TimePoint deadline,
       std::atomic<uint64_t>* progress_bytes);
  Result<PullStats> run();

 private:
  enum class Verdict { kMatches, kDiffers, kUnknown };  // kUnknown: its digest is not published yet

  struct Source {
    transport::RegionMap regions;
    Exposure exposure{nullptr};
    std::unique_ptr<transport::RemoteMemory> memory;
    std::atomic<bool> usable{false};
    std::atomic<bool> layout_agreed{false};
    std::atomic<uint64_t> bytes{0};
    Status trouble;  // why it is not usable; guarded by mutex_
  };

  Status open_sources();
  void fetch_chunks();
  bool fetch(uint64_t chunk);  // from any source; false: give up
  bool read_from(size_t source,
                 uint64_t chunk);  // false: that source failed or stop
  void settle(uint64_t chunk);     // compares, reads again, or puts it on the pending list
  Verdict compare(uint64_t chunk);
  bool fetch_again(uint64_t chunk);
  void await_digests();
  bool any_pending_published();
  void fail(Status status);
  [[nodiscard]] bool revoked() const { return revocation_.revoked(options_.generation); }
  [[nodiscard]] bool stopped() const {
    return failed_.load(std::memory_order_acquire) || revoked() || Clock::now() >= deadline_;
  }
  [[nodiscard]] uint64_t chunk_bytes(uint64_t chunk) const {
    return std::min(chunk_bytes_, regions_.bytes() - chunk * chunk_bytes_);
  }
  Status no_source_left(uint64_t chunk);
  Status corrupt(uint64_t chunk, const std::string& tried);
  Status deadline_passed();
  Result<PullStats> outcome(TimePoint begin);

  const ReceiverOptions& options_;
  const Revocation& revocation_;
  const TimePoint deadline_;
  std::atomic<uint64_t>* progress_bytes_;
  Doorbell* doorbell_;
  transport::RegionMap regions_;
  uint64_t chunk_bytes_;
  uint64_t chunks_;
  std::vector<Source> sources_;
  std::vector<Digest128> digests_;   // of what was read, by chunk
  std::vector<uint32_t> read_from_;  // source, by chunk
  std::atomic<uint64_t> next_{0};
  std::atomic<uint64_t> proved_{0};  // chunks that match their digest
  std::atomic<uint64_t> refetched_{0};
  std::atomic<bool> failed_{false};
  std::mutex mutex_;
  std::vector<uint64_t> pending_;  // guarded by mutex_ while threads run
  Status failure_;                 // the first one; guarded by mutex_
};

}  // namespace hpcore::state
