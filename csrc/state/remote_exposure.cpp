#include "state/remote_exposure.hpp"

#include <algorithm>
#include <cstring>

namespace hpcore::state {
namespace {

using transport::FabricMemory;
using transport::Region;
using transport::RegionMap;

constexpr uint64_t kAreaBytes = Exposure::kStagingOffset;  // what follows is not for reading

RegionMap area_at(const void* area) {
  return RegionMap({Region{reinterpret_cast<uint64_t>(area), kAreaBytes}});
}

}  // namespace

Result<std::string> remote_address(transport::FabricServer* server, const RegionMap& regions,
                                   void* exposure_area, uint64_t generation) {
  Result<std::string> state = server->expose(regions, generation);
  if (!state.ok()) return state;
  Result<std::string> exposure = server->expose(area_at(exposure_area), generation);
  if (!exposure.ok()) return exposure;
  const uint64_t bytes = state.value().size();
  return std::string(reinterpret_cast<const char*>(&bytes), sizeof bytes) + state.value() +
         exposure.value();
}

RemoteExposure::RemoteExposure(std::shared_ptr<transport::Fabric> fabric, uint64_t digests)
    : fabric_(std::move(fabric)),
      bytes_(std::min(kAreaBytes, Exposure::kHeaderBytes + digests * sizeof(DigestEntry))),
      mirror_(kAreaBytes / sizeof(Line)) {}

RemoteExposure::~RemoteExposure() {
  exposure_.reset();
  if (fabric_ != nullptr) fabric_->release(mirrored().regions());
}

std::unique_ptr<RemoteExposure> RemoteExposure::over(
    std::unique_ptr<transport::RemoteMemory> memory, std::unique_ptr<transport::RemoteMemory> area,
    uint64_t digests) {
  std::unique_ptr<RemoteExposure> made(new RemoteExposure(nullptr, digests));
  made->memory_ = std::move(memory);
  made->exposure_ = std::move(area);
  return made;
}

RegionMap exposed_area(const void* exposure_area) { return area_at(exposure_area); }

Result<std::unique_ptr<RemoteExposure>> RemoteExposure::open(
    const std::shared_ptr<transport::Fabric>& fabric, const std::string& address,
    uint64_t generation, const RegionMap& regions, uint64_t digests) {
  uint64_t bytes = 0;
  if (address.size() >= sizeof bytes) std::memcpy(&bytes, address.data(), sizeof bytes);
  if (address.size() < sizeof bytes || bytes > address.size() - sizeof bytes) {
    return Status(Code::kCorrupt, "a source's fabric address is damaged: a length does not fit");
  }
  std::unique_ptr<RemoteExposure> made(new RemoteExposure(fabric, digests));
  auto memory =
      FabricMemory::open(fabric, address.substr(sizeof bytes, bytes), generation, regions);
  if (!memory.ok()) return memory.status();
  auto exposure = FabricMemory::open(fabric, address.substr(sizeof bytes + bytes), generation,
                                     made->mirrored());
  if (!exposure.ok()) return exposure.status();
  made->memory_ = std::move(memory.value());
  made->exposure_ = std::move(exposure.value());
  return made;
}

RegionMap RemoteExposure::mirrored() const { return area_at(mirror_.data()); }

Status RemoteExposure::refresh(const transport::StopCondition& stop) {
  return exposure_->read(0, bytes_, mirrored(), stop);
}

}  // namespace hpcore::state
