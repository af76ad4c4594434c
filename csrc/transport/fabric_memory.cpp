#include "transport/fabric_memory.hpp"

#include <algorithm>
#include <cstdio>

namespace hpcore::transport {
namespace {

// Below this share of the link's rate an operator is told, once so much was read that start-up does
// not count.
constexpr double kPoorShare = 0.3;
constexpr uint64_t kJudgedBytes = 64 << 20;

// Rails of one network first; what is left over in order. Each of ours is used once at most.
std::vector<std::pair<size_t, size_t>> pair_rails(const Fabric& fabric, const FabricAddress& peer) {
  std::vector<std::pair<size_t, size_t>> pairs;
  std::vector<bool> taken(peer.rails.size());
  std::vector<size_t> unpaired;
  for (size_t ours = 0; ours < fabric.rails().size(); ++ours) {
    size_t theirs = 0;
    while (theirs < peer.rails.size() &&
           (taken[theirs] || peer.rails[theirs].network != fabric.rails()[ours]->fabric_name())) {
      ++theirs;
    }
    if (theirs == peer.rails.size()) {
      unpaired.push_back(ours);
      continue;
    }
    taken[theirs] = true;
    pairs.emplace_back(ours, theirs);
  }
  for (const size_t ours : unpaired) {
    const auto theirs =
        static_cast<size_t>(std::find(taken.begin(), taken.end(), false) - taken.begin());
    if (theirs == peer.rails.size()) break;
    taken[theirs] = true;
    pairs.emplace_back(ours, theirs);
  }
  return pairs;
}

}  // namespace

Result<std::shared_ptr<const FabricPeer>> FabricPeer::of(const Fabric& fabric,
                                                         const std::string& address) {
  Result<FabricAddress> decoded = FabricAddress::decode(address);
  if (!decoded.ok()) return decoded.status();
  auto peer = std::make_shared<FabricPeer>();
  peer->address = std::move(decoded.value());
  const driver::fi::EpAttr& ours = *fabric.rails()[0]->info().ep_attr;
  if (peer->address.protocol != ours.protocol ||
      peer->address.protocol_version != ours.protocol_version) {
    return Status(Code::kMismatch,
                  "the peer's fabric provider " + peer->address.provider + " speaks protocol " +
                      std::to_string(peer->address.protocol) + " version " +
                      std::to_string(peer->address.protocol_version) + "; this process's " +
                      fabric.provider() + " speaks " + std::to_string(ours.protocol) + " version " +
                      std::to_string(ours.protocol_version) +
                      ". Use the same libfabric and provider on both");
  }
  for (const Region& region : peer->address.regions) {
    size_t index = 0;
    if (region.bytes > 0) {
      Result<size_t> found = peer->address.range_of(region);
      if (!found.ok()) return found.status();
      index = found.value();
    }
    peer->ranges.push_back(index);
  }
  peer->regions = RegionMap(peer->address.regions);
  peer->rails = pair_rails(fabric, peer->address);
  return std::shared_ptr<const FabricPeer>(std::move(peer));
}

Result<std::unique_ptr<FabricMemory>> FabricMemory::open(std::shared_ptr<Fabric> fabric,
                                                         const std::string& address,
                                                         uint64_t generation,
                                                         const RegionMap& expected) {
  auto peer = FabricPeer::of(*fabric, address);
  if (!peer.ok()) return peer.status();
  if (peer.value()->address.generation != generation) {
    return Status(Code::kMismatch, "the peer's fabric address is of generation " +
                                       std::to_string(peer.value()->address.generation) +
                                       ", this is generation " + std::to_string(generation));
  }
  if (Status same = expected.same_sizes(peer.value()->regions, "the peer"); !same.ok()) return same;
  return std::unique_ptr<FabricMemory>(
      new FabricMemory(std::move(fabric), std::move(peer.value())));
}

Result<std::unique_ptr<FabricLane>> FabricMemory::take_lane() {
  {
    const std::scoped_lock lock(mutex_);
    if (!idle_.empty()) {
      std::unique_ptr<FabricLane> lane = std::move(idle_.back());
      idle_.pop_back();
      return lane;
    }
  }
  return FabricLane::open(fabric_, peer_);
}

void FabricMemory::begin_read() {
  const std::scoped_lock lock(mutex_);
  if (readers_++ == 0) busy_since_ = Clock::now();
}

void FabricMemory::end_read(std::unique_ptr<FabricLane> lane, uint64_t bytes) {
  const std::scoped_lock lock(mutex_);
  if (--readers_ == 0) busy_ += Clock::now() - busy_since_;
  bytes_ += bytes;
  emulated_ = emulated_ || lane->emulated();
  if (!lane->broken()) idle_.push_back(std::move(lane));
}

Status FabricMemory::read(uint64_t offset, uint64_t bytes, const RegionMap& into,
                          const StopCondition& stop) {
  return stream(offset, bytes, into, stop, [](uint64_t, uint64_t) {});
}

Status FabricMemory::stream(uint64_t offset, uint64_t bytes, const RegionMap& into,
                            const StopCondition& stop, const Arrival& arrival) {
  if (bytes == 0) return {};
  for (const RegionMap* map : {&into, &peer_->regions}) {
    if (offset > map->bytes() || bytes > map->bytes() - offset) {
      return {Code::kInvalid, "a read of bytes " + std::to_string(offset) + " to " +
                                  std::to_string(offset + bytes) + " of " +
                                  std::to_string(map->bytes())};
    }
  }
  Result<std::unique_ptr<FabricLane>> lane = take_lane();
  if (!lane.ok()) return lane.status();
  begin_read();
  Status status = lane.value()->stream(offset, bytes, into, stop, arrival);
  end_read(std::move(lane.value()), status.ok() ? bytes : 0);
  return status;
}

Status FabricMemory::digest(uint64_t offset, uint64_t bytes, Digester* digester,
                            const StopCondition& stop) {
  // The window of a lane at once; registered for as long as it lives.
  const uint64_t most = std::min(bytes, fabric_->options().window_bytes);
  std::vector<unsigned char> buffer(most);
  const Region own{reinterpret_cast<uint64_t>(buffer.data()), most};
  Status status;
  while (bytes > 0 && status.ok()) {
    const uint64_t length = std::min(bytes, most);
    status = read(offset, length, RegionMap({{0, offset}, {own.address, length}}), stop);
    if (status.ok()) digester->update(buffer.data(), length);
    offset += length;
    bytes -= length;
  }
  fabric_->release({own});
  return status;
}

std::string FabricMemory::method() const { return "fabric/" + fabric_->provider(); }

double FabricMemory::bytes_per_s() const {
  const std::scoped_lock lock(mutex_);
  Clock::duration busy = busy_;
  if (readers_ > 0) busy += Clock::now() - busy_since_;
  const double seconds = std::chrono::duration<double>(busy).count();
  return seconds > 0 ? static_cast<double>(bytes_) / seconds : 0;
}

std::string FabricMemory::note() const {
  const double rate = bytes_per_s();
  const double link = fabric_->link_bytes_per_s();
  const std::scoped_lock lock(mutex_);
  std::string text;
  if (emulated_) text = "the provider emulates reads by messages (no RDMA in the card?); ";
  if (bytes_ >= kJudgedBytes && link > 0 && rate < kPoorShare * link) {
    char numbers[96];
    std::snprintf(numbers, sizeof numbers, "%.2f GB/s is %.0f %% of the link's %.2f GB/s; ",
                  rate / 1e9, 100 * rate / link, link / 1e9);
    text += numbers;
  }
  return text.empty() ? text : "slow: " + text + fabric_->describe();
}

}  // namespace hpcore::transport
