#include "transport/fabric_rail.hpp"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <random>

namespace hpcore::transport {
namespace {

namespace fi = driver::fi;

uint64_t random_word() {
  std::random_device source;
  return static_cast<uint64_t>(source()) << 32 | source();
}

// What the kernel says of a network interface, in Mbit/s; 0: nothing.
double interface_mbit_per_s(const std::string& name) {
  std::FILE* file = std::fopen(("/sys/class/net/" + name + "/speed").c_str(), "re");
  if (file == nullptr) return 0;
  double speed = 0;
  if (std::fscanf(file, "%lf", &speed) != 1) speed = 0;
  std::fclose(file);
  return speed > 0 ? speed : 0;
}

}  // namespace

FabricRail::FabricRail(const driver::FabricLibrary& library, InfoHandle info,
                       const FabricLimits& limits)
    : library_(library),
      info_(std::move(info)),
      limits_(limits),
      next_key_(random_word() >> (info_->domain_attr->mr_key_size < 8 ? 33 : 1)) {}

Result<std::shared_ptr<FabricRail>> FabricRail::open(const driver::FabricLibrary& library,
                                                     InfoHandle info, const FabricLimits& limits) {
  if (info->domain_attr->mr_key_size > sizeof(uint64_t)) {
    return Status(Code::kUnsupported, "provider " + std::string(info->fabric_attr->prov_name) +
                                          " has keys of " +
                                          std::to_string(info->domain_attr->mr_key_size) +
                                          " bytes; 8 is the limit here");
  }
  std::shared_ptr<FabricRail> rail(new FabricRail(library, std::move(info), limits));
  fi::Fabric* fabric = nullptr;
  if (int error = library.fabric(rail->info_->fabric_attr, &fabric, nullptr); error != 0) {
    return Status(Code::kSystem,
                  "opening fabric " + rail->fabric_name() + ": " + rail->error_text(error));
  }
  rail->fabric_.reset(fabric);
  fi::Domain* domain = nullptr;
  if (int error = fabric->ops->domain(fabric, rail->info_.get(), &domain, nullptr); error != 0) {
    return Status(Code::kSystem,
                  "opening fabric domain " + rail->domain_name() + ": " + rail->error_text(error));
  }
  rail->domain_.reset(domain);
  return rail;
}

std::string FabricRail::domain_name() const {
  return info_->domain_attr->name == nullptr ? "" : info_->domain_attr->name;
}

std::string FabricRail::fabric_name() const {
  return info_->fabric_attr->name == nullptr ? "" : info_->fabric_attr->name;
}

bool FabricRail::peer_writes() const {
  return std::strcmp(info_->fabric_attr->prov_name, "shm") == 0;
}

double FabricRail::link_bytes_per_s() const {
  const fi::Nic* nic = info_->nic;
  if (nic != nullptr && nic->link_attr != nullptr && nic->link_attr->speed > 0) {
    return static_cast<double>(nic->link_attr->speed) / 8;
  }
  return interface_mbit_per_s(domain_name()) * 1e6 / 8;
}

std::string FabricRail::error_text(ssize_t negative_error) const {
  const int error = static_cast<int>(negative_error < 0 ? -negative_error : negative_error);
  return std::string(library_.strerror(error)) + " (libfabric error " + std::to_string(error) + ")";
}

FabricRail::Shared FabricRail::find(const Region& range) const {
  const uint64_t end = range.address + range.bytes;
  for (auto at = registered_.upper_bound(range.address); at != registered_.begin();) {
    --at;
    const Region& known = at->second->range;
    if (end <= known.address + known.bytes) return at->second;
    if (known.address + longest_ < end) break;
  }
  return nullptr;
}

Result<std::shared_ptr<const Registration>> FabricRail::registration(const Region& range) {
  const std::scoped_lock lock(mutex_);
  if (Shared known = find(range)) return known;
  const Region pages = aligned_ranges({range}, kPageBytes).at(0);
  fi::Mr* mr = nullptr;
  fi::Domain* domain = domain_.get();
  const int error =
      domain->mr->reg(&domain->fid, reinterpret_cast<void*>(pages.address), pages.bytes,
                      fi::kRead | fi::kRemoteRead, 0, next_key_, 0, &mr, nullptr);
  if (error != 0) {
    return Status(Code::kSystem, "registering " + std::to_string(pages.bytes) +
                                     " bytes of memory with " + domain_name() + ": " +
                                     error_text(error) +
                                     ". Locked memory may be limited: see ulimit -l");
  }
  ++next_key_;
  longest_ = std::max(longest_, pages.bytes);
  auto made = std::make_shared<const Registration>(Registration{pages, FidHandle<fi::Mr>(mr)});
  registered_.emplace(pages.address, made);
  return made;
}

void FabricRail::release(const std::vector<Region>& ranges) {
  const std::scoped_lock lock(mutex_);
  std::erase_if(registered_,
                [&](const auto& entry) { return overlaps_any(ranges, entry.second->range); });
}

Result<FabricPort> FabricPort::open(std::shared_ptr<FabricRail> rail, size_t queue_entries) {
  FabricPort port;
  port.rail_ = std::move(rail);
  FabricRail& on = *port.rail_;
  auto failed = [&on](const char* what, int error) {
    return Status(Code::kSystem,
                  std::string(what) + " on " + on.domain_name() + ": " + on.error_text(error));
  };
  fi::Domain* domain = on.domain();
  fi::CqAttr cq_attr{};
  cq_attr.size = queue_entries;
  cq_attr.format = fi::kCqFormatContext;
  cq_attr.wait_obj = on.limits().poll_only ? fi::kWaitNone : fi::kWaitFd;
  fi::Cq* cq = nullptr;
  int error = domain->ops->cq_open(domain, &cq_attr, &cq, nullptr);
  if (error != 0 && cq_attr.wait_obj != fi::kWaitNone) {
    cq_attr.wait_obj = fi::kWaitNone;
    error = domain->ops->cq_open(domain, &cq_attr, &cq, nullptr);
  }
  if (error != 0) return failed("opening a completion queue", error);
  port.cq_.reset(cq);
  if (cq_attr.wait_obj == fi::kWaitFd &&
      cq->fid.ops->control(&cq->fid, fi::kControlGetWait, &port.wait_fd_) != 0) {
    port.wait_fd_ = -1;
  }
  fi::AvAttr av_attr{};
  av_attr.type =
      on.info().domain_attr->av_type != 0 ? on.info().domain_attr->av_type : fi::kAvTable;
  fi::Av* av = nullptr;
  if ((error = domain->ops->av_open(domain, &av_attr, &av, nullptr)) != 0) {
    return failed("opening an address vector", error);
  }
  port.av_.reset(av);
  fi::Ep* ep = nullptr;
  auto* info = const_cast<fi::Info*>(&on.info());
  if ((error = domain->ops->endpoint(domain, info, &ep, nullptr)) != 0) {
    return failed("opening an endpoint", error);
  }
  port.ep_.reset(ep);
  if ((error = ep->fid.ops->bind(&ep->fid, &av->fid, 0)) != 0) return failed("binding", error);
  if ((error = ep->fid.ops->bind(&ep->fid, &cq->fid, fi::kTransmit | fi::kRecv)) != 0) {
    return failed("binding", error);
  }
  if ((error = ep->fid.ops->control(&ep->fid, fi::kControlEnable, nullptr)) != 0) {
    return failed("enabling an endpoint", error);
  }
  return port;
}

Result<std::string> FabricPort::address() const {
  std::string name(256, '\0');
  size_t bytes = name.size();
  const int error = ep_->cm->getname(&ep_->fid, name.data(), &bytes);
  if (error != 0 || bytes > name.size()) {
    return Status(Code::kSystem, "asking for an endpoint's address on " + rail_->domain_name() +
                                     ": " + rail_->error_text(error));
  }
  name.resize(bytes);
  return name;
}

Result<uint64_t> FabricPort::insert(const std::string& peer_address) {
  uint64_t handle = 0;
  const int inserted = av_->ops->insert(av_.get(), peer_address.data(), 1, &handle, 0, nullptr);
  if (inserted == 1) return handle;
  return Status(Code::kInvalid, "the peer's fabric address is not accepted on " +
                                    rail_->domain_name() +
                                    (inserted < 0 ? ": " + rail_->error_text(inserted) : ""));
}

bool FabricPort::may_sleep() const {
  fi::Fid* queue = &cq_->fid;
  return rail_->fabric()->ops->trywait(rail_->fabric(), &queue, 1) == 0;
}

bool FabricPort::emulates_reads() const {
  if (std::strcmp(rail_->info().fabric_attr->prov_name, "efa") != 0) return false;
  bool emulated = false;
  size_t bytes = sizeof emulated;
  const int error = ep_->ops->getopt(&ep_->fid, 0, fi::kOptionEfaEmulatedRead, &emulated, &bytes);
  return error == 0 && emulated;
}

}  // namespace hpcore::transport
