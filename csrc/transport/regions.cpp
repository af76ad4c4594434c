#include "transport/regions.hpp"

#include <algorithm>

#include "base/digest.hpp"

namespace hpcore::transport {

std::vector<Region> aligned_ranges(const std::vector<Region>& regions, uint64_t alignment) {
  std::vector<Region> ranges;
  for (const Region& region : regions) {
    if (region.bytes == 0) continue;
    const uint64_t begin = region.address / alignment * alignment;
    const uint64_t end = (region.address + region.bytes + alignment - 1) / alignment * alignment;
    ranges.push_back({begin, end - begin});
  }
  std::sort(ranges.begin(), ranges.end(),
            [](const Region& a, const Region& b) { return a.address < b.address; });
  std::vector<Region> joined;
  for (const Region& range : ranges) {
    if (!joined.empty() && range.address <= joined.back().address + joined.back().bytes) {
      Region& last = joined.back();
      last.bytes = std::max(last.address + last.bytes, range.address + range.bytes) - last.address;
    } else {
      joined.push_back(range);
    }
  }
  return joined;
}

bool overlaps_any(const std::vector<Region>& ranges, const Region& region) {
  // The first range that ends behind the region's start.
  const auto at = std::upper_bound(
      ranges.begin(), ranges.end(), region.address,
      [](uint64_t address, const Region& range) { return address < range.address + range.bytes; });
  return at != ranges.end() && at->address < region.address + region.bytes;
}

RegionMap::RegionMap(std::vector<Region> regions) : regions_(std::move(regions)) {
  starts_.reserve(regions_.size() + 1);
  starts_.push_back(0);
  for (const Region& region : regions_) starts_.push_back(starts_.back() + region.bytes);
}

size_t RegionMap::region_at(uint64_t offset) const {
  // The last region that starts at or before the offset: skips empty ones.
  const auto after = std::upper_bound(starts_.begin(), starts_.end(), offset);
  return static_cast<size_t>(after - starts_.begin()) - 1;
}

void RegionMap::pieces(uint64_t offset, uint64_t bytes, std::vector<iovec>* out) const {
  for (size_t i = region_at(offset); bytes > 0; ++i) {
    const uint64_t skipped = offset - starts_[i];
    const uint64_t length = std::min(regions_[i].bytes - skipped, bytes);
    if (length == 0) continue;
    out->push_back({reinterpret_cast<void*>(regions_[i].address + skipped), length});
    offset += length;
    bytes -= length;
  }
}

Status RegionMap::same_sizes(const RegionMap& other, const std::string& whose) const {
  if (regions_.size() != other.regions_.size()) {
    return {Code::kMismatch, "state layout differs: this process tracks " +
                                 std::to_string(regions_.size()) + " regions, " + whose + " " +
                                 std::to_string(other.regions_.size())};
  }
  for (size_t i = 0; i < regions_.size(); ++i) {
    if (regions_[i].bytes == other.regions_[i].bytes) continue;
    return {Code::kMismatch, "state layout differs in region " + std::to_string(i) + ": " +
                                 std::to_string(regions_[i].bytes) + " bytes in this process, " +
                                 std::to_string(other.regions_[i].bytes) + " in " + whose};
  }
  return {};
}

uint64_t RegionMap::layout_word() const {
  uint32_t crc = 0;
  for (const Region& region : regions_) crc = crc32c(&region.bytes, sizeof region.bytes, crc);
  return static_cast<uint64_t>(regions_.size()) << 32 | crc;
}

}  // namespace hpcore::transport
