#include "transport/nccl_server.hpp"

#include <algorithm>
#include <random>

#include "base/service_thread.hpp"
#include "transport/nccl_sender.hpp"

namespace hpcore::transport {
namespace {

constexpr int kLook_ms = 50;

std::string new_secret() {
  std::random_device random;
  std::string secret;
  for (int i = 0; i < 4; ++i) {
    const uint32_t word = random();
    secret.append(reinterpret_cast<const char*>(&word), sizeof word);
  }
  return secret;
}

}  // namespace

Result<std::unique_ptr<NcclServer>> NcclServer::open(std::shared_ptr<CudaDevice> device,
                                                     const driver::NcclLibrary& library,
                                                     const NcclOptions& options) {
  std::unique_ptr<NcclServer> made(new NcclServer(std::move(device), library, options));
  Result<ControlListener> listener = ControlListener::open(options.host);
  if (!listener.ok()) return listener.status();
  made->listener_ = std::move(listener.value());
  NcclServer* self = made.get();
  Result<std::thread> thread =
      start_service_thread("hpcore-nccl-in", [self] { self->listen(); }, false);
  if (!thread.ok()) return thread.status();
  made->thread_ = std::move(thread.value());
  return made;
}

NcclServer::NcclServer(std::shared_ptr<CudaDevice> device, const driver::NcclLibrary& library,
                       const NcclOptions& options)
    : device_(std::move(device)), library_(library), options_(options) {}

NcclServer::~NcclServer() { close(); }

void NcclServer::listen() {
  while (!closed_.load()) {
    Result<Fd> connection = listener_.accept(kLook_ms);
    const std::scoped_lock lock(mutex_);
    senders_.remove_if([](const auto& sender) { return sender->ended(); });
    if (!connection.ok() || !connection.value().valid() || closed_.load()) continue;
    auto sender = std::make_unique<NcclSender>(this, std::move(connection.value()));
    if (sender->start().ok()) senders_.push_back(std::move(sender));
  }
}

Result<std::string> NcclServer::expose(Exposed exposed) {
  for (const std::string& id : exposed.ids) {
    if (const auto checked = nccl_unique_id(id); !checked.ok()) return checked.status();
  }
  auto exposure = std::make_shared<Exposure>();
  Result<CudaEvent> ready = CudaEvent::create(device_);
  if (!ready.ok()) return ready.status();
  exposure->ready = std::move(ready.value());
  HPCORE_RETURN_IF_ERROR(
      exposure->ready.record(reinterpret_cast<driver::cuda::Stream*>(exposed.stream)));
  NcclAddress address;
  address.place = listener_.place();
  address.secret = new_secret();
  address.generation = exposed.generation;
  address.piece_bytes = options_.lane.piece_bytes;
  address.regions = exposed.regions.regions();
  exposure->used.resize(exposed.ids.size());
  exposure->what = std::move(exposed);
  const std::scoped_lock lock(mutex_);
  if (closed_.load()) return Status(Code::kAborted, "the NCCL server is closed");
  exposures_[address.secret] = std::move(exposure);
  return address.encode();
}

Result<std::shared_ptr<NcclServer::Exposure>> NcclServer::admit(const NcclHello& hello,
                                                                uint64_t generation) {
  const std::scoped_lock lock(mutex_);
  const auto found = exposures_.find(hello.secret);
  if (found == exposures_.end() || found->second->what.generation != generation) {
    return Status(Code::kMismatch, "nothing is exposed to this receiver in generation " +
                                       std::to_string(generation) + " (any more)");
  }
  std::shared_ptr<Exposure>& exposure = found->second;
  if (hello.wants == NcclHello::Wants::kArea) return exposure;
  const std::string id(hello.id.internal, sizeof hello.id.internal);
  for (size_t i = 0; i < exposure->used.size(); ++i) {
    if (exposure->what.ids[i] != id) continue;
    if (exposure->used[i]) {
      return Status(Code::kMismatch, "the NCCL unique id was used before; each link needs its own");
    }
    exposure->used[i] = true;
    return exposure;
  }
  return Status(Code::kMismatch, "the NCCL unique id is none of the " +
                                     std::to_string(exposure->used.size()) + " of generation " +
                                     std::to_string(generation));
}

// Outside of the lock: a sender that ends may be in admit().
void NcclServer::end_senders(uint64_t generation, bool all) {
  std::list<std::unique_ptr<NcclSender>> ending;
  {
    const std::scoped_lock lock(mutex_);
    for (auto at = senders_.begin(); at != senders_.end();) {
      const auto next = std::next(at);
      if (all || (*at)->generation() == generation) ending.splice(ending.end(), senders_, at);
      at = next;
    }
  }
  for (auto& sender : ending) sender->end();
}

void NcclServer::withdraw(uint64_t generation) {
  {
    const std::scoped_lock lock(mutex_);
    std::erase_if(exposures_,
                  [&](const auto& entry) { return entry.second->what.generation == generation; });
  }
  end_senders(generation, false);
}

void NcclServer::close() {
  closed_.store(true);
  if (thread_.joinable()) thread_.join();
  end_senders(0, true);
  const std::scoped_lock lock(mutex_);
  exposures_.clear();
}

}  // namespace hpcore::transport
