#include "transport/huge_pages.hpp"

#include <sys/mman.h>

namespace hpcore::transport {
namespace {

constexpr uint64_t kHugePage = 2 << 20;
constexpr int kAdviceCollapse = 25;  // MADV_COLLAPSE, Linux 6.1; older C libraries do not name it

}  // namespace

uint64_t use_huge_pages(const std::vector<Region>& regions) {
  uint64_t huge_bytes = 0;
  for (const Region& range : aligned_ranges(regions, kHugePage)) {
    madvise(reinterpret_cast<void*>(range.address), range.bytes, MADV_HUGEPAGE);
    for (uint64_t offset = 0; offset < range.bytes; offset += kHugePage) {
      auto* at = reinterpret_cast<void*>(range.address + offset);
      if (madvise(at, kHugePage, kAdviceCollapse) == 0) huge_bytes += kHugePage;
    }
  }
  return huge_bytes;
}

}  // namespace hpcore::transport
