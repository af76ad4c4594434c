// Purpose: a process's way into a network through libfabric: which provider, which rails. One
// Fabric serves any number of FabricServers (what others may read) and FabricMemories (what is read
// from others).
//   provider ""     the best there is: efa, verbs, tcp
//   provider "tcp"  the tcp provider under whatever name this version of libfabric gives it
// A provider that is not there is an error that lists those that are: never another one instead.
// Threads: thread-safe. Ownership: shared by its servers and readers.
#pragma once

#include "transport/fabric_rail.hpp"

namespace hpcore::transport {

struct FabricOptions {
  std::string library;               // path; empty: looked for
  std::string provider;              // empty: the best
  std::vector<std::string> domains;  // names of the domains to use as rails; empty: chosen
  FabricLimits limits;
  uint64_t piece_bytes = 512 << 10;  // one read on the wire
  uint64_t window_bytes = 4 << 20;   // on the wire at once, for each reading thread
  double answer_limit_s = 2.0;       // a peer from which nothing comes for so long is given up
};

class Fabric {
 public:
  static Result<std::shared_ptr<Fabric>> open(const FabricOptions& options);

  [[nodiscard]] const FabricOptions& options() const { return options_; }
  [[nodiscard]] const std::vector<std::shared_ptr<FabricRail>>& rails() const { return rails_; }
  [[nodiscard]] const driver::FabricLibrary& library() const { return library_; }
  [[nodiscard]] std::string provider() const { return rails_[0]->info().fabric_attr->prov_name; }
  [[nodiscard]] bool offers_device_memory() const;
  // Sum over the rails; 0: not known.
  [[nodiscard]] double link_bytes_per_s() const;
  // One line for a log: provider, versions, rails, link rate.
  [[nodiscard]] std::string describe() const;
  // Forgets the registrations of these regions' pages, before they are unmapped.
  void release(const std::vector<Region>& regions);

 private:
  Fabric(const FabricOptions& options, const driver::FabricLibrary& library)
      : options_(options), library_(library) {}
  Status open_rails();

  FabricOptions options_;
  driver::FabricLibrary library_;
  std::vector<std::shared_ptr<FabricRail>> rails_;
};

}  // namespace hpcore::transport
