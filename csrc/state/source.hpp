// Purpose: the healthy side of a heal. publish() digests this source's share of the chunks into its
// exposure area, rings the receivers and returns: receivers read this process's memory by
// themselves. The regions must keep their bytes until the generation's next commit, which cannot
// happen before the receivers are done.
// Where the kernel forbids receivers to read, a staging thread (asleep otherwise) serves them: it
// lives until close().
// Threads: publish() starts up to `threads` threads; one caller at a time; close() from any thread.
// Ownership: borrows the regions, and the exposure areas; shares the revocation. Destroy (or close)
// it before the regions are freed.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "base/doorbell.hpp"
#include "roster/revocation.hpp"
#include "state/exposure.hpp"
#include "transport/cuda_ipc.hpp"
#include "transport/fabric_server.hpp"
#include "transport/nccl_server.hpp"
#include "transport/own_memory.hpp"
#include "transport/regions.hpp"
#include "transport/staging.hpp"

namespace hpcore::state {

struct PublishStats {
  uint64_t bytes = 0;   // digested by this source
  uint64_t chunks = 0;  // of this source
  double seconds = 0;
};

struct SourceOptions {
  uint64_t generation = 0;
  std::vector<transport::Region> regions;
  uint64_t chunk_bytes = 0;  // 0: the default
  uint64_t index = 0;        // of this source among
  uint64_t sources = 1;
  unsigned threads = 1;
  std::vector<void*> receivers;  // their exposure areas
  std::shared_ptr<void> keeper;  // of the memory that the exposure areas lie in
  // For receivers on other hosts; null: there are none.
  std::shared_ptr<transport::FabricServer> server;
  // Where the regions lie (also) in device memory; `stream`: what computed the state last.
  std::shared_ptr<transport::CudaDevice> device;
  uint64_t stream = 0;
  std::shared_ptr<transport::NcclServer> nccl;  // null: not by NCCL
  std::vector<std::string> unique_ids;          // one for each receiver that may ask over NCCL
};

class StateSource {
 public:
  StateSource(SourceOptions options, void* exposure_area, std::shared_ptr<Revocation> revocation);
  ~StateSource();
  StateSource(const StateSource&) = delete;
  StateSource& operator=(const StateSource&) = delete;

  // kRevoked when the generation ended in the middle, kInvalid for an index out of range.
  Result<PublishStats> publish();
  // What receivers on other hosts need; may be asked for before publish(). The regions stay
  // registered when the source is closed: withdraw them from the server before they are freed.
  Result<std::string> remote_address();
  // What receivers of device memory need: those of this node, by CUDA IPC (kUnsupported where the
  // driver gives no handles); any, by NCCL, each with its unique id. Once each, before or after
  // publish().
  Result<std::string> device_address();
  Result<std::string> nccl_address();
  void close();  // twice is fine

 private:
  void digest_share(std::atomic<uint64_t>* next, std::atomic<uint64_t>* bytes);
  [[nodiscard]] Result<Digest128> digest_chunk(uint64_t chunk) const;
  Status open_device();
  [[nodiscard]] bool revoked() const { return revocation_->revoked(options_.generation); }

  SourceOptions options_;
  transport::RegionMap regions_;
  uint64_t chunk_bytes_;
  Exposure exposure_;
  std::shared_ptr<Revocation> revocation_;
  std::mutex mutex_;                                 // guards what follows
  Status failure_;                                   // of a digest
  std::unique_ptr<transport::OwnDeviceMemory> own_;  // of device memory; set before digesting
  std::unique_ptr<transport::CudaIpcExport> ipc_;
  std::unique_ptr<transport::StagingServer> server_;
};

}  // namespace hpcore::state
