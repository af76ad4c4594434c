// Purpose: what a peer must know to read this process's memory over a fabric, as bytes that can be
// carried in a roster: the provider and its protocol, one endpoint and one network for each rail,
// the registered ranges with a key for each rail, and the regions.
// Threads, ownership: plain values. The text is checked (magic, version, lengths, CRC) before use.
#pragma once

#include <string>
#include <vector>

#include "base/status.hpp"
#include "transport/regions.hpp"

namespace hpcore::transport {

struct FabricAddress {
  struct Rail {
    std::string network;   // libfabric's name of the fabric, such as "10.0.0.0/24"
    std::string endpoint;  // opaque
  };
  struct Key {
    uint64_t key = 0;
    uint64_t base = 0;  // what a read of the range's first byte names: its address, or an offset
  };
  struct Range {
    uint64_t start = 0;  // address in the peer
    uint64_t bytes = 0;
    std::vector<Key> keys;  // by rail
  };

  uint64_t generation = 0;
  std::string provider;
  uint32_t protocol = 0;
  uint32_t protocol_version = 0;
  std::vector<Rail> rails;
  std::vector<Range> ranges;  // sorted, disjoint
  std::vector<Region> regions;

  [[nodiscard]] std::string encode() const;
  static Result<FabricAddress> decode(const std::string& bytes);
  // Index of the range that holds the region, which is not empty.
  [[nodiscard]] Result<size_t> range_of(const Region& region) const;
};

}  // namespace hpcore::transport
