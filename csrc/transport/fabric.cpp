#include "transport/fabric.hpp"

#include <algorithm>
#include <cstdio>
#include <set>

namespace hpcore::transport {
namespace {

namespace fi = driver::fi;

// Names under which a provider is known, the best first. libfabric 1.x calls the tcp provider's own
// reliable datagrams "net", 2.x "tcp".
std::vector<std::string> names_of(const std::string& provider) {
  if (provider.empty()) return {"efa", "verbs;ofi_rxm", "tcp", "net", "tcp;ofi_rxm"};
  if (provider == "tcp") return {"tcp", "net", "tcp;ofi_rxm"};
  return {provider, provider + ";ofi_rxm"};
}

bool is_socket(const fi::Info& info) {
  return info.addr_format == fi::kSockaddrIn || info.addr_format == fi::kSockaddrIn6;
}

bool is_loopback(const fi::Info& info) {
  return info.domain_attr->name != nullptr && std::string(info.domain_attr->name) == "lo";
}

std::string domain_of(const fi::Info& info) {
  return info.domain_attr->name == nullptr ? "" : info.domain_attr->name;
}

Result<InfoHandle> find(const driver::FabricLibrary& library) {
  InfoHandle hints(library.dupinfo(nullptr), InfoFreer{library.freeinfo});
  if (!hints) return Status(Code::kSystem, "libfabric has no memory for hints");
  hints->caps = fi::kMsg | fi::kRma;
  hints->mode = fi::kContext | fi::kContext2;
  hints->ep_attr->type = fi::kEpRdm;
  hints->domain_attr->threading = fi::kThreadSafe;
  hints->domain_attr->mr_mode = fi::kMrLocal | fi::kMrVirtAddr | fi::kMrAllocated | fi::kMrProvKey;
  fi::Info* found = nullptr;
  const int error =
      library.getinfo(driver::kOldestFabricVersion, nullptr, nullptr, 0, hints.get(), &found);
  InfoHandle list(found, InfoFreer{library.freeinfo});
  if (error != 0) {
    return Status(Code::kUnsupported,
                  "libfabric " + library.version_text() + " in " + library.path +
                      " offers no provider with one-sided reads: " + library.strerror(-error));
  }
  return list;
}

// The infos of one provider that become rails: one for each domain.
std::vector<const fi::Info*> choose(const fi::Info* list, const std::string& name,
                                    const std::vector<std::string>& domains) {
  std::vector<const fi::Info*> chosen;
  std::set<std::string> taken;
  auto rank = [](const fi::Info* info) { return info->addr_format == fi::kSockaddrIn6 ? 1 : 0; };
  std::vector<const fi::Info*> all;
  for (const fi::Info* info = list; info != nullptr; info = info->next) {
    // "efa-direct" has no protocol of its own above the device: it cannot talk to "efa".
    const char* fabric = info->fabric_attr->name;
    if (info->fabric_attr->prov_name != name) continue;
    if (fabric != nullptr && std::string(fabric) == "efa-direct") continue;
    // Nobody else can be reached over it: only when it is asked for.
    if (domains.empty() && is_socket(*info) && is_loopback(*info)) continue;
    all.push_back(info);
  }
  // IPv4 before IPv6.
  std::stable_sort(all.begin(), all.end(), [&](const fi::Info* a, const fi::Info* b) {
    return is_socket(*a) && is_socket(*b) && rank(a) < rank(b);
  });
  for (const fi::Info* info : all) {
    const std::string domain = domain_of(*info);
    const bool asked = std::find(domains.begin(), domains.end(), domain) != domains.end();
    if (!domains.empty() && !asked) continue;
    if (taken.insert(domain).second) chosen.push_back(info);
  }
  // Interfaces of a host need not reach the same peers: several only when they were named.
  if (domains.empty() && !chosen.empty() && is_socket(*chosen[0])) chosen.resize(1);
  return chosen;
}

std::string offered(const fi::Info* list) {
  std::set<std::string> names;
  for (const fi::Info* info = list; info != nullptr; info = info->next) {
    names.insert(std::string(info->fabric_attr->prov_name) + " on " + domain_of(*info));
  }
  std::string text;
  for (const std::string& name : names) text.append(text.empty() ? "" : ", ").append(name);
  return text;
}

}  // namespace

Result<std::shared_ptr<Fabric>> Fabric::open(const FabricOptions& options) {
  if (options.piece_bytes == 0 || options.window_bytes < options.piece_bytes) {
    return Status(Code::kInvalid, "a fabric's window of " + std::to_string(options.window_bytes) +
                                      " bytes must hold at least one piece of " +
                                      std::to_string(options.piece_bytes) + " bytes (above 0)");
  }
  Result<driver::FabricLibrary> library = driver::load_fabric_library(options.library);
  if (!library.ok()) return library.status();
  std::shared_ptr<Fabric> fabric(new Fabric(options, library.value()));
  if (Status status = fabric->open_rails(); !status.ok()) return status;
  return fabric;
}

Status Fabric::open_rails() {
  Result<InfoHandle> found = find(library_);
  if (!found.ok()) return found.status();
  const fi::Info* list = found.value().get();
  std::vector<const fi::Info*> chosen;
  for (const std::string& name : names_of(options_.provider)) {
    chosen = choose(list, name, options_.domains);
    if (!chosen.empty()) break;
  }
  if (chosen.empty()) {
    std::string what = options_.provider.empty() ? "efa, verbs or tcp" : options_.provider;
    if (options_.domains.empty()) what.append(" that leads out of this host");
    for (const std::string& domain : options_.domains) what.append(" on ").append(domain);
    return {Code::kUnsupported, "libfabric " + library_.version_text() + " in " + library_.path +
                                    " offers no provider " + what + "; it offers " + offered(list)};
  }
  for (const fi::Info* info : chosen) {
    InfoHandle own(library_.dupinfo(info), InfoFreer{library_.freeinfo});
    if (!own) return {Code::kSystem, "libfabric has no memory for a copy of its information"};
    auto rail = FabricRail::open(library_, std::move(own), options_.limits);
    if (!rail.ok()) return rail.status();
    rails_.push_back(std::move(rail.value()));
  }
  return {};
}

bool Fabric::offers_device_memory() const {
  return std::all_of(rails_.begin(), rails_.end(),
                     [](const auto& rail) { return (rail->info().caps & fi::kHmem) != 0; });
}

double Fabric::link_bytes_per_s() const {
  double sum = 0;
  for (const auto& rail : rails_) {
    const double link = rail->link_bytes_per_s();
    if (link <= 0) return 0;
    sum += link;
  }
  return sum;
}

std::string Fabric::describe() const {
  std::string text = "provider " + provider() + " of libfabric " + library_.version_text() + " (" +
                     library_.path + "), rails";
  for (const auto& rail : rails_) text.append(" ").append(rail->domain_name());
  const double link = link_bytes_per_s();
  if (link <= 0) return text + ", link rate unknown";
  char rate[48];
  std::snprintf(rate, sizeof rate, ", link %.2f GB/s", link / 1e9);
  return text + rate;
}

void Fabric::release(const std::vector<Region>& regions) {
  const std::vector<Region> ranges = aligned_ranges(regions, kPageBytes);
  for (const auto& rail : rails_) rail->release(ranges);
}

}  // namespace hpcore::transport
