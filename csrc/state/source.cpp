#include "state/source.hpp"

#include <algorithm>

#include "state/remote_exposure.hpp"
#include "state/threads.hpp"

namespace hpcore::state {

StateSource::StateSource(SourceOptions options, void* exposure_area,
                         std::shared_ptr<Revocation> revocation)
    : options_(std::move(options)),
      regions_(options_.regions),
      chunk_bytes_(effective_chunk_bytes(options_.chunk_bytes, regions_.bytes(), options_.sources)),
      exposure_(exposure_area),
      revocation_(std::move(revocation)) {}

StateSource::~StateSource() { close(); }

void StateSource::close() {
  if (options_.nccl != nullptr) options_.nccl->withdraw(options_.generation);
  const std::scoped_lock lock(mutex_);
  ipc_.reset();
  if (!server_) return;
  server_->stop();
  revocation_->detach(&exposure_.staging()->request);
  server_.reset();
}

Result<std::string> StateSource::remote_address() {
  if (options_.server == nullptr) {
    return Status(Code::kInvalid, "this source was made without a fabric server");
  }
  return state::remote_address(options_.server.get(), regions_, exposure_.area(),
                               options_.generation);
}

Result<std::string> StateSource::device_address() {
  if (options_.device == nullptr) {
    return Status(Code::kInvalid, "this source was made without a device");
  }
  auto made = transport::CudaIpcExport::open(options_.device, regions_, options_.generation,
                                             options_.stream);
  if (!made.ok()) return made.status();
  const std::scoped_lock lock(mutex_);
  ipc_ = std::move(made.value());
  return ipc_->address();
}

Result<std::string> StateSource::nccl_address() {
  if (options_.nccl == nullptr) {
    return Status(Code::kInvalid, "this source was made without an NCCL server");
  }
  return options_.nccl->expose({regions_, exposed_area(exposure_.area()), options_.generation,
                                options_.unique_ids, options_.stream});
}

// What a stream still computes must not be digested early.
Status StateSource::open_device() {
  if (options_.device == nullptr || own_ != nullptr) return {};
  auto made = transport::OwnDeviceMemory::open(options_.device, regions_, options_.stream);
  if (!made.ok()) return made.status();
  HPCORE_RETURN_IF_ERROR(made.value()->await_ready([this] { return revoked(); }));
  own_ = std::move(made.value());
  return {};
}

Result<Digest128> StateSource::digest_chunk(uint64_t chunk) const {
  const uint64_t offset = chunk * chunk_bytes_;
  const uint64_t bytes = std::min(chunk_bytes_, regions_.bytes() - offset);
  Digester digester;
  if (own_ != nullptr) {
    HPCORE_RETURN_IF_ERROR(own_->digest(offset, bytes, &digester, [this] { return revoked(); }));
    return digester.finish();
  }
  std::vector<iovec> pieces;
  regions_.pieces(offset, bytes, &pieces);
  for (const iovec& piece : pieces) digester.update(piece.iov_base, piece.iov_len);
  return digester.finish();
}

void StateSource::digest_share(std::atomic<uint64_t>* next, std::atomic<uint64_t>* bytes) {
  const uint64_t chunks = chunk_count(regions_.bytes(), chunk_bytes_);
  const uint64_t first = first_digested(options_.index, chunks, options_.sources);
  const uint64_t end = first_digested(options_.index + 1, chunks, options_.sources);
  while (!revoked()) {
    const uint64_t entry = next->fetch_add(1);
    const uint64_t chunk = first + entry;
    if (chunk >= end) return;
    const Result<Digest128> digest = digest_chunk(chunk);
    if (!digest.ok()) {
      const std::scoped_lock lock(mutex_);
      failure_ = digest.status();
      return;
    }
    exposure_.publish(options_.generation, entry, digest.value());
    for (void* area : options_.receivers) Exposure(area).receiver_doorbell()->ring();
    bytes->fetch_add(std::min(chunk_bytes_, regions_.bytes() - chunk * chunk_bytes_));
  }
}

Result<PublishStats> StateSource::publish() {
  if (options_.sources == 0 || options_.index >= options_.sources) {
    return Status(Code::kInvalid, "source index " + std::to_string(options_.index) +
                                      " is not below the number of sources, " +
                                      std::to_string(options_.sources));
  }
  const TimePoint begin = Clock::now();
  if (revoked())
    return Status(Code::kRevoked, "generation was revoked before its state was published");
  {
    const std::scoped_lock lock(mutex_);
    if (!server_) {
      exposure_.staging()->reset(options_.generation);
      auto server = std::make_unique<transport::StagingServer>(
          exposure_.staging(), &regions_, options_.generation, [this] { return revoked(); });
      // Attached first: a revocation between the two would not wake the thread.
      revocation_->attach(&exposure_.staging()->request);
      if (Status status = server->start(); !status.ok()) {
        revocation_->detach(&exposure_.staging()->request);
        return status;
      }
      server_ = std::move(server);
    }
  }
  if (Status status = open_device(); !status.ok() && !revoked()) return status;
  exposure_.open(options_.generation,
                 {regions_.layout_word(), regions_.bytes(), chunk_bytes_, options_.sources});
  std::atomic<uint64_t> next{0};
  std::atomic<uint64_t> bytes{0};
  run_on_threads(std::max(options_.threads, 1u), [&] { digest_share(&next, &bytes); });
  if (revoked()) {
    return Status(Code::kRevoked, "generation " + std::to_string(options_.generation) +
                                      " was revoked while this source published its digests");
  }
  if (const std::scoped_lock lock(mutex_); !failure_.ok()) return failure_;
  PublishStats stats;
  stats.bytes = bytes.load();
  const uint64_t chunks = chunk_count(regions_.bytes(), chunk_bytes_);
  stats.chunks = first_digested(options_.index + 1, chunks, options_.sources) -
                 first_digested(options_.index, chunks, options_.sources);
  stats.seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  return stats;
}

}  // namespace hpcore::state
