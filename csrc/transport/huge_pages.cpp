#include "transport/huge_pages.hpp"

#include <sys/mman.h>

#include <algorithm>

namespace hpcore::transport {
namespace {

constexpr uint64_t kHugePage = 2 << 20;
constexpr int kAdviceCollapse = 25;  // MADV_COLLAPSE, Linux 6.1; older C libraries do not name it

// The regions, rounded outwards, sorted, neighbours joined.
std::vector<Region> huge_ranges(const std::vector<Region>& regions) {
  std::vector<Region> ranges;
  for (const Region& region : regions) {
    if (region.bytes == 0) continue;
    const uint64_t begin = region.address / kHugePage * kHugePage;
    const uint64_t end = (region.address + region.bytes + kHugePage - 1) / kHugePage * kHugePage;
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

}  // namespace

uint64_t use_huge_pages(const std::vector<Region>& regions) {
  uint64_t huge_bytes = 0;
  for (const Region& range : huge_ranges(regions)) {
    madvise(reinterpret_cast<void*>(range.address), range.bytes, MADV_HUGEPAGE);
    for (uint64_t offset = 0; offset < range.bytes; offset += kHugePage) {
      auto* at = reinterpret_cast<void*>(range.address + offset);
      if (madvise(at, kHugePage, kAdviceCollapse) == 0) huge_bytes += kHugePage;
    }
  }
  return huge_bytes;
}

}  // namespace hpcore::transport
