// Purpose: pieces of a process's memory, one after the other, as one virtual byte range. Offset o
// of the range means the same byte of the same tensor in every process whose regions have the same
// sizes.
// Threads: immutable after construction, thread-safe.
// Ownership: does not own the memory it describes.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <vector>

#include "base/status.hpp"

namespace hpcore::transport {

struct Region {
  uint64_t address = 0;
  uint64_t bytes = 0;
};

constexpr uint64_t kPageBytes = 4096;

// The regions rounded outwards to multiples of `alignment`, sorted, neighbours joined; empty ones
// are left out.
std::vector<Region> aligned_ranges(const std::vector<Region>& regions, uint64_t alignment);

// Whether the region shares a byte with one of the ranges, which are sorted and disjoint.
bool overlaps_any(const std::vector<Region>& ranges, const Region& region);

class RegionMap {
 public:
  RegionMap() : starts_(1, 0) {}
  explicit RegionMap(std::vector<Region> regions);

  [[nodiscard]] uint64_t bytes() const { return starts_.back(); }
  [[nodiscard]] const std::vector<Region>& regions() const { return regions_; }
  // Index of the region that holds the byte at `offset` (< bytes()).
  [[nodiscard]] size_t region_at(uint64_t offset) const;
  // Offset of a region's first byte.
  [[nodiscard]] uint64_t start(size_t region) const { return starts_[region]; }
  // Appends the pieces of [offset, offset + bytes) to `out`. The range must lie inside.
  void pieces(uint64_t offset, uint64_t bytes, std::vector<iovec>* out) const;
  // kMismatch that names the first region whose size differs.
  [[nodiscard]] Status same_sizes(const RegionMap& other, const std::string& whose) const;
  // Number of regions and the CRC of their sizes: equal for equal layouts.
  [[nodiscard]] uint64_t layout_word() const;

 private:
  std::vector<Region> regions_;
  std::vector<uint64_t> starts_;  // starts_[i]: offset of region i; the last one is the total
};

}  // namespace hpcore::transport
