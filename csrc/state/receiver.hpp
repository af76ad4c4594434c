// Purpose: the newcomer's side of a heal. pull() reads the sources' memory into this process's
// regions, chunk by chunk, with several threads, as planned (transfer_plan.hpp): unless told
// otherwise, what source d digests is read from source (d + 1) mod K, so that with two sources or
// more every chunk proves that two replicas agree. It is digested while it passes; pull runs ahead
// of the published digests and compares as they arrive. Sources that die or lag lose their chunks
// to the others (work_share.hpp); a chunk that does not match is read from another source; one
// whose digest does not come, since its publisher died or is silent, is proved by what a second
// source holds (pull_proof.cpp). Threads: pull() is one call at a time and starts threads - 1
// threads; progress() from any thread. Ownership: borrows the regions and exposure areas; shares
// the revocation. Never writes outside its regions. Lifecycle: pull() may be called again after a
// failure; it starts from the beginning.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <vector>

#include "base/doorbell.hpp"
#include "roster/revocation.hpp"
#include "state/exposure.hpp"
#include "transport/fabric.hpp"
#include "transport/nccl_memory.hpp"
#include "transport/paced_memory.hpp"
#include "transport/remote_memory.hpp"

namespace hpcore::state {

struct SourcePlace {
  int slot = 0;
  pid_t pid = 0;
  std::vector<transport::Region> regions;
  void* exposure_area = nullptr;
  std::vector<transport::ArenaPlace> arenas;
  transport::Pace pace = transport::kUnpaced;  // tests and benches
  // StateSource::remote_address() of a source on another host; then `exposure_area` is not used.
  std::string remote_address;
  std::string unreachable;  // why this process cannot read it; empty: it can
  // Of a source whose state lies in device memory (StateSource::device_address(), nccl_address());
  // its exposure area is read from its server where `exposure_area` is null.
  std::string device_address{};
  std::string nccl_address{};
  std::string unique_id{};  // of this receiver's link
  [[nodiscard]] bool on_device() const { return !device_address.empty() || !nccl_address.empty(); }
};

// Bytes [begin, end) of the state are read from source number `source` (an index).
struct PlannedShare {
  size_t source = 0;
  uint64_t begin = 0;
  uint64_t end = 0;
};

struct PullStats {
  uint64_t bytes = 0;
  double seconds = 0;
  uint64_t chunks = 0;
  uint64_t refetched = 0;                 // chunks read again because their digest did not match
  std::vector<uint64_t> bytes_by_source;  // read from each, what was read again included
  uint64_t moved = 0;                     // chunks read from another source than planned
  uint64_t reread = 0;  // chunks proved by a second source, as their digest did not come
  std::string method;   // how: "arena", "process_vm_readv", "staging", or several joined by "+"
  std::string notes;    // why a better method could not be used, and which sources were lost
};

struct ReceiverOptions {
  uint64_t generation = 0;
  std::vector<transport::Region> regions;
  uint64_t chunk_bytes = 0;          // 0: the default
  std::vector<SourcePlace> sources;  // in the order of their indices
  std::vector<PlannedShare> plan;    // ascending, without gaps; empty: equal blocks
  std::shared_ptr<transport::ArenaMappings> mappings;  // null: arenas are not used
  std::shared_ptr<transport::Fabric> fabric;           // for sources on other hosts
  std::shared_ptr<transport::CudaDevice> device;       // for state in device memory
  std::shared_ptr<transport::NcclAccess> nccl;         // null: not by NCCL
  unsigned threads = 2;
  void* exposure_area = nullptr;  // of this process's slot: sources ring its doorbell
  transport::Method method = transport::Method::kProbe;
  // Asked by pull()'s own thread, every 100 ms while it only waits: true ends the pull (kAborted).
  std::function<bool()> interrupted;
  std::shared_ptr<void> keeper;  // of the memory that the exposure areas lie in
};

class StateReceiver {
 public:
  StateReceiver(ReceiverOptions options, std::shared_ptr<Revocation> revocation);
  StateReceiver(const StateReceiver&) = delete;
  StateReceiver& operator=(const StateReceiver&) = delete;

  // Blocks until everything arrived and is proved. kRevoked within milliseconds when the generation
  // ends; kTimeout at the deadline; kMismatch (layouts differ), kCorrupt (no source has bytes that
  // match the digest), kPeerDead.
  Result<PullStats> pull(TimePoint deadline);
  [[nodiscard]] uint64_t progress_bytes() const { return progress_bytes_.load(); }

 private:
  ReceiverOptions options_;
  std::shared_ptr<Revocation> revocation_;
  std::atomic<uint64_t> progress_bytes_{0};
};

}  // namespace hpcore::state
