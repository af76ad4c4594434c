// Purpose: one rail of a fabric: a domain of libfabric (one network card, one interface) with the
// memory that is registered with it, and the ports (endpoints) that are opened on it.
// Threads: FabricRail is thread-safe; a FabricPort belongs to one thread at a time.
// Ownership: handles close what they hold. Ports and registrations share the rail: it is closed
// after the last of them.
// Lifecycle: a registration is kept for the next who asks for the same memory, until release() and
// the last user's end. Memory must be released before it is unmapped.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "driver/fabric_library.hpp"
#include "transport/regions.hpp"

namespace hpcore::transport {

template <typename Object>
struct FidCloser {
  void operator()(Object* object) const { object->fid.ops->close(&object->fid); }
};
template <typename Object>
using FidHandle = std::unique_ptr<Object, FidCloser<Object>>;

struct InfoFreer {
  void (*free)(driver::fi::Info*) = nullptr;
  void operator()(driver::fi::Info* info) const { free(info); }
};
using InfoHandle = std::unique_ptr<driver::fi::Info, InfoFreer>;

// What a user asked to do without; each is a capability that some provider lacks.
struct FabricLimits {
  bool poll_only = false;    // no waiting on descriptors
  bool bounce = false;       // no reads straight into the caller's memory
  bool plain_reads = false;  // one piece of memory a read
};

// Memory that a domain may read and write, and lets be read by peers that have the key.
struct Registration {
  Region range;
  FidHandle<driver::fi::Mr> mr;
};

class FabricRail {
 public:
  static Result<std::shared_ptr<FabricRail>> open(const driver::FabricLibrary& library,
                                                  InfoHandle info, const FabricLimits& limits);
  FabricRail(const FabricRail&) = delete;
  FabricRail& operator=(const FabricRail&) = delete;

  [[nodiscard]] const driver::fi::Info& info() const { return *info_; }
  [[nodiscard]] driver::fi::Fabric* fabric() const { return fabric_.get(); }
  [[nodiscard]] driver::fi::Domain* domain() const { return domain_.get(); }
  [[nodiscard]] const FabricLimits& limits() const { return limits_; }
  [[nodiscard]] std::string domain_name() const;
  [[nodiscard]] std::string fabric_name() const;
  [[nodiscard]] bool needs_local_registration() const { return has_mode(driver::fi::kMrLocal); }
  [[nodiscard]] bool uses_addresses() const { return has_mode(driver::fi::kMrVirtAddr); }
  // shm: the peer's process may write into ours, also after our port was closed.
  [[nodiscard]] bool peer_writes() const;
  [[nodiscard]] double link_bytes_per_s() const;  // 0: unknown
  [[nodiscard]] std::string error_text(ssize_t negative_error) const;

  // The registration that covers the range; made if there is none. To be let go before the rail.
  Result<std::shared_ptr<const Registration>> registration(const Region& range);
  // Forgets the registrations that overlap the ranges (sorted, disjoint): they end with their last
  // user.
  void release(const std::vector<Region>& ranges);

 private:
  FabricRail(const driver::FabricLibrary& library, InfoHandle info, const FabricLimits& limits);
  [[nodiscard]] bool has_mode(int mode) const { return (info_->domain_attr->mr_mode & mode) != 0; }

  driver::FabricLibrary library_;
  InfoHandle info_;
  FabricLimits limits_;
  FidHandle<driver::fi::Fabric> fabric_;
  FidHandle<driver::fi::Domain> domain_;
  std::mutex mutex_;
  uint64_t next_key_;  // where the provider wants keys from us: from a random start
  using Shared = std::shared_ptr<const Registration>;
  [[nodiscard]] Shared find(const Region& range) const;
  std::multimap<uint64_t, Shared> registered_;  // by start; they may overlap
  uint64_t longest_ = 0;                        // bytes of the longest one ever
};

// An enabled endpoint with its completion queue and address vector.
class FabricPort {
 public:
  static Result<FabricPort> open(std::shared_ptr<FabricRail> rail, size_t queue_entries);
  FabricPort(FabricPort&&) = default;
  FabricPort& operator=(FabricPort&&) = default;

  [[nodiscard]] FabricRail& rail() const { return *rail_; }
  [[nodiscard]] driver::fi::Ep* endpoint() const { return ep_.get(); }
  [[nodiscard]] driver::fi::Cq* queue() const { return cq_.get(); }
  [[nodiscard]] int wait_fd() const { return wait_fd_; }  // -1: can only be polled
  [[nodiscard]] Result<std::string> address() const;
  Result<uint64_t> insert(const std::string& peer_address);
  // True: nothing is pending, the descriptor may be slept on.
  [[nodiscard]] bool may_sleep() const;
  // EFA only: true when reads are done by messages in software.
  [[nodiscard]] bool emulates_reads() const;

 private:
  FabricPort() = default;
  std::shared_ptr<FabricRail> rail_;
  FidHandle<driver::fi::Cq> cq_;
  FidHandle<driver::fi::Av> av_;
  FidHandle<driver::fi::Ep> ep_;
  int wait_fd_ = -1;
};

}  // namespace hpcore::transport
