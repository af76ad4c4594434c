// Purpose: the side of a fabric that is read: an endpoint on each rail, and a thread that moves the
// provider along (tcp and shm answer reads in software; a card that reads by itself lets the thread
// sleep).
// Threads: thread-safe. Ownership: borrows the exposed memory; shares the fabric.
// Lifecycle: one server of a process serves any number of exposures. What was exposed stays
// readable, by those who have the address, until it is released from the fabric and the server is
// closed. After close() nothing can be read and the memory may go, once it is released.
#pragma once

#include <atomic>
#include <set>
#include <thread>

#include "base/fd.hpp"
#include "transport/fabric.hpp"
#include "transport/fabric_address.hpp"

namespace hpcore::transport {

class FabricServer {
 public:
  static Result<std::unique_ptr<FabricServer>> open(std::shared_ptr<Fabric> fabric);
  ~FabricServer();
  FabricServer(const FabricServer&) = delete;
  FabricServer& operator=(const FabricServer&) = delete;

  // Registers the regions (whole pages, neighbours together) and says where they are to be read.
  Result<std::string> expose(const RegionMap& regions, uint64_t generation);
  // Registrations that only this exposure used are given up; peers that read it fail. For memory
  // that is to be unmapped.
  void withdraw(const RegionMap& regions);
  void close();  // twice is fine; peers that read are cut off
  [[nodiscard]] const std::shared_ptr<Fabric>& fabric() const { return fabric_; }

 private:
  explicit FabricServer(std::shared_ptr<Fabric> fabric) : fabric_(std::move(fabric)) {}
  Status start();
  void run();

  std::shared_ptr<Fabric> fabric_;
  std::mutex mutex_;  // guards what follows but the thread's own use of ports_
  std::vector<FabricPort> ports_;
  std::set<std::shared_ptr<const Registration>> exposed_;
  std::atomic<bool> stopped_{false};
  Fd wake_;
  std::thread thread_;
};

}  // namespace hpcore::transport
