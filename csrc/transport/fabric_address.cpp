#include "transport/fabric_address.hpp"

#include <algorithm>
#include <cstring>

#include "base/digest.hpp"

namespace hpcore::transport {
namespace {

constexpr uint64_t kMagic = 0x3130424146435048;  // "HPCFAB01", little-endian
constexpr uint64_t kMaxRails = 64;

class Writer {
 public:
  void word(uint64_t value) { out_.append(reinterpret_cast<const char*>(&value), sizeof value); }
  void text(const std::string& value) {
    word(value.size());
    out_ += value;
  }
  std::string finish() {
    word(crc32c(out_.data(), out_.size()));
    return std::move(out_);
  }

 private:
  std::string out_;
};

class Reader {
 public:
  explicit Reader(const std::string& in) : at_(in.data()), end_(in.data() + in.size()) {}
  uint64_t word() {
    uint64_t value = 0;
    if (left() < sizeof value) {
      whole_ = false;
      return 0;
    }
    std::memcpy(&value, at_, sizeof value);
    at_ += sizeof value;
    return value;
  }
  std::string text() {
    const uint64_t bytes = word();
    if (bytes > left()) {
      whole_ = false;
      return "";
    }
    std::string value(at_, bytes);
    at_ += bytes;
    return value;
  }
  // A count of things that take at least so many bytes each: never more than can follow.
  uint64_t count(uint64_t bytes_each) {
    const uint64_t value = word();
    if (value > left() / bytes_each) whole_ = false;
    return whole_ ? value : 0;
  }
  [[nodiscard]] bool whole() const { return whole_; }
  [[nodiscard]] bool at_end() const { return at_ == end_; }

 private:
  [[nodiscard]] uint64_t left() const { return static_cast<uint64_t>(end_ - at_); }
  const char* at_;
  const char* end_;
  bool whole_ = true;
};

Status damaged(const char* what) {
  return {Code::kCorrupt, std::string("a peer's fabric address is damaged: ") + what};
}

}  // namespace

std::string FabricAddress::encode() const {
  Writer writer;
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
  constexpr size_t kCrcBytes = sizeof(uint64_t);
  if (bytes.size() < 2 * kCrcBytes) return damaged("it is too short");
  const std::string body = bytes.substr(0, bytes.size() - kCrcBytes);
  uint64_t crc = 0;
  std::memcpy(&crc, bytes.data() + body.size(), kCrcBytes);
  Reader reader(body);
  if (reader.word() != kMagic) return damaged("it has no or another version's mark");
  if (crc != crc32c(body.data(), body.size())) return damaged("its check value does not match");
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
