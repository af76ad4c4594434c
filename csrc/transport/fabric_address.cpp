#include "transport/fabric_address.hpp"

#include <algorithm>

#include "transport/address_text.hpp"

namespace hpcore::transport {
namespace {

constexpr uint64_t kMagic = 0x3130424146435048;  // "HPCFAB01", little-endian
constexpr uint64_t kMaxRails = 64;

Status damaged(const char* what) {
  return {Code::kCorrupt, std::string("a peer's fabric address is damaged: ") + what};
}

}  // namespace

std::string FabricAddress::encode() const {
  AddressWriter writer;
  writer.word(kMagic);
  writer.word(generation);
  writer.text(provider);
  writer.word(protocol);
  writer.word(protocol_version);
  writer.word(rails.size());
  for (const Rail& rail : rails) {
    writer.text(rail.network);
    writer.text(rail.endpoint);
  }
  writer.word(ranges.size());
  for (const Range& range : ranges) {
    writer.word(range.start);
    writer.word(range.bytes);
    for (const Key& key : range.keys) {
      writer.word(key.key);
      writer.word(key.base);
    }
  }
  writer.word(regions.size());
  for (const Region& region : regions) {
    writer.word(region.address);
    writer.word(region.bytes);
  }
  return writer.finish();
}

Result<FabricAddress> FabricAddress::decode(const std::string& bytes) {
  std::string body;
  if (const char* why = check_address(bytes, kMagic, &body); why != nullptr) return damaged(why);
  AddressReader reader(body);
  (void)reader.word();
  FabricAddress address;
  address.generation = reader.word();
  address.provider = reader.text();
  address.protocol = static_cast<uint32_t>(reader.word());
  address.protocol_version = static_cast<uint32_t>(reader.word());
  address.rails.resize(reader.count(2 * sizeof(uint64_t)));
  for (Rail& rail : address.rails) {
    rail.network = reader.text();
    rail.endpoint = reader.text();
  }
  if (address.rails.empty() || address.rails.size() > kMaxRails) return damaged("number of rails");
  address.ranges.resize(reader.count((2 + 2 * address.rails.size()) * sizeof(uint64_t)));
  for (Range& range : address.ranges) {
    range.start = reader.word();
    range.bytes = reader.word();
    range.keys.resize(address.rails.size());
    for (Key& key : range.keys) {
      key.key = reader.word();
      key.base = reader.word();
    }
  }
  address.regions.resize(reader.count(2 * sizeof(uint64_t)));
  for (Region& region : address.regions) {
    region.address = reader.word();
    region.bytes = reader.word();
  }
  if (!reader.whole() || !reader.at_end()) return damaged("a length does not fit");
  return address;
}

Result<size_t> FabricAddress::range_of(const Region& region) const {
  const auto after =
      std::upper_bound(ranges.begin(), ranges.end(), region.address,
                       [](uint64_t address, const Range& range) { return address < range.start; });
  if (after != ranges.begin()) {
    const Range& range = *std::prev(after);
    const uint64_t inside = region.address - range.start;
    if (inside <= range.bytes && region.bytes <= range.bytes - inside) {
      return static_cast<size_t>(std::prev(after) - ranges.begin());
    }
  }
  return damaged("a region lies outside what is registered");
}

}  // namespace hpcore::transport
