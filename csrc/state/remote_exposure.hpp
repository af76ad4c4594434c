// Purpose: a source on another host, as its receivers see it: its state and its exposure area
// (layout and digests), both read over a fabric. The area is mirrored here, so that a receiver
// looks at it as it does at one of its own node; nobody rings for a digest there, so it is fetched
// again while one is missing. Threads: refresh() is one thread, while nobody looks at area().
// Ownership: owns the mirror.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "state/exposure.hpp"
#include "transport/fabric_memory.hpp"
#include "transport/fabric_server.hpp"

namespace hpcore::state {

// What a receiver on another host must know of a source, as bytes: the address of its state and of
// its exposure area.
Result<std::string> remote_address(transport::FabricServer* server,
                                   const transport::RegionMap& regions, void* exposure_area,
                                   uint64_t generation);

// The part of an exposure area that others read.
transport::RegionMap exposed_area(const void* exposure_area);

class RemoteExposure {
 public:
  // `digests`: how many entries the source publishes.
  // kCorrupt, kMismatch (another generation, layout or protocol).
  static Result<std::unique_ptr<RemoteExposure>> open(
      const std::shared_ptr<transport::Fabric>& fabric, const std::string& address,
      uint64_t generation, const transport::RegionMap& regions, uint64_t digests);

  // Over any other transport: a reader of the state and one of the exposure area.
  static std::unique_ptr<RemoteExposure> over(std::unique_ptr<transport::RemoteMemory> memory,
                                              std::unique_ptr<transport::RemoteMemory> area,
                                              uint64_t digests);

  ~RemoteExposure();
  RemoteExposure(const RemoteExposure&) = delete;
  RemoteExposure& operator=(const RemoteExposure&) = delete;

  // The state's reader, once; the exposure keeps one of its own.
  std::unique_ptr<transport::RemoteMemory> take_memory() { return std::move(memory_); }
  [[nodiscard]] void* area() { return mirror_.data(); }
  // Fetches the layout and all digests that are there by now.
  Status refresh(const transport::StopCondition& stop);

 private:
  RemoteExposure(std::shared_ptr<transport::Fabric> fabric, uint64_t digests);
  [[nodiscard]] transport::RegionMap mirrored() const;

  std::shared_ptr<transport::Fabric> fabric_;  // null: over another transport
  uint64_t bytes_;                             // of the area that matter
  struct alignas(64) Line {
    unsigned char bytes[64];
  };
  std::vector<Line> mirror_;
  std::unique_ptr<transport::RemoteMemory> memory_;
  std::unique_ptr<transport::RemoteMemory> exposure_;
};

}  // namespace hpcore::state
