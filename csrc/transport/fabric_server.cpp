#include "transport/fabric_server.hpp"

#include <sys/eventfd.h>

#include <algorithm>
#include <cerrno>

#include "base/service_thread.hpp"
#include "transport/fabric_wait.hpp"

namespace hpcore::transport {
namespace {

namespace fi = driver::fi;

constexpr size_t kQueueEntries = 1024;
constexpr auto kIdleWait = std::chrono::milliseconds(200);

}  // namespace

Result<std::unique_ptr<FabricServer>> FabricServer::open(std::shared_ptr<Fabric> fabric) {
  std::unique_ptr<FabricServer> server(new FabricServer(std::move(fabric)));
  if (Status status = server->start(); !status.ok()) return status;
  return server;
}

FabricServer::~FabricServer() { close(); }

Status FabricServer::start() {
  for (const auto& rail : fabric_->rails()) {
    Result<FabricPort> port = FabricPort::open(rail, kQueueEntries);
    if (!port.ok()) return port.status();
    ports_.push_back(std::move(port.value()));
  }
  wake_ = Fd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake_.valid()) return Status::system("eventfd of the fabric server", errno);
  Result<std::thread> thread = start_service_thread("hpcore-fabric", [this] { run(); }, false);
  if (!thread.ok()) return thread.status();
  thread_ = std::move(thread.value());
  return {};
}

void FabricServer::run() {
  FabricWait waiter(ports_, wake_.get());
  void* entries[16];
  while (!stopped_.load(std::memory_order_acquire)) {
    bool found = false;
    for (const FabricPort& port : ports_) {
      fi::Cq* queue = port.queue();
      const ssize_t count = queue->ops->read(queue, entries, 16);
      if (count == -fi::kErrAvailable) {  // a peer went away
        fi::CqErrEntry error{};
        queue->ops->readerr(queue, &error, 0);
      }
      found = found || count > 0 || count == -fi::kErrAvailable;
    }
    if (found) {
      waiter.found();
    } else {
      waiter.wait(kIdleWait);
    }
  }
}

Result<std::string> FabricServer::expose(const RegionMap& regions, uint64_t generation) {
  const std::scoped_lock lock(mutex_);
  if (ports_.empty()) return Status(Code::kAborted, "the fabric server is closed");
  const fi::Info& info = ports_[0].rail().info();
  FabricAddress address;
  address.generation = generation;
  address.provider = fabric_->provider();
  address.protocol = info.ep_attr->protocol;
  address.protocol_version = info.ep_attr->protocol_version;
  address.regions = regions.regions();
  for (const FabricPort& port : ports_) {
    Result<std::string> endpoint = port.address();
    if (!endpoint.ok()) return endpoint.status();
    address.rails.push_back({port.rail().fabric_name(), endpoint.value()});
  }
  for (const Region& range : aligned_ranges(regions.regions(), kPageBytes)) {
    FabricAddress::Range entry{range.address, range.bytes, {}};
    for (const FabricPort& port : ports_) {
      auto made = port.rail().registration(range);
      if (!made.ok()) return made.status();
      const Registration& registration = *made.value();
      const uint64_t base =
          port.rail().uses_addresses() ? range.address : range.address - registration.range.address;
      entry.keys.push_back({registration.mr->key, base});
      exposed_.insert(std::move(made.value()));
    }
    address.ranges.push_back(std::move(entry));
  }
  return address.encode();
}

void FabricServer::withdraw(const RegionMap& regions) {
  const std::scoped_lock lock(mutex_);
  const std::vector<Region> ranges = aligned_ranges(regions.regions(), kPageBytes);
  fabric_->release(ranges);
  std::erase_if(exposed_, [&](const auto& held) { return overlaps_any(ranges, held->range); });
}

void FabricServer::close() {
  stopped_.store(true, std::memory_order_release);
  if (wake_.valid()) eventfd_write(wake_.get(), 1);
  const std::scoped_lock lock(mutex_);
  if (thread_.joinable()) thread_.join();
  ports_.clear();
  exposed_.clear();
}

}  // namespace hpcore::transport
