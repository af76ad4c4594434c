#include "transport/mapped_memory.hpp"

#include <algorithm>

namespace hpcore::transport {
namespace {

constexpr uint64_t kStep = 4 << 20;  // between two looks at the stop condition

bool inside(const Region& region, const ArenaPlace& arena) {
  return region.address >= arena.address &&
         region.address + region.bytes <= arena.address + arena.bytes;
}

std::vector<Region> mapped_regions(const RemoteProcess& process,
                                   const std::vector<std::shared_ptr<ArenaMappings::View>>& views) {
  std::vector<Region> regions = process.regions->regions();
  for (Region& region : regions) {
    uint64_t here = 0;
    for (size_t i = 0; i < views.size(); ++i) {
      const ArenaPlace& arena = process.arenas[i];
      if (!inside(region, arena)) continue;
      here = reinterpret_cast<uint64_t>(views[i]->data()) + (region.address - arena.address);
    }
    region.address = here;
  }
  return regions;
}

}  // namespace

bool MappedMemory::needs_other(const RemoteProcess& process) {
  const std::vector<Region>& regions = process.regions->regions();
  return std::any_of(regions.begin(), regions.end(), [&process](const Region& region) {
    return region.bytes > 0 &&
           std::none_of(process.arenas.begin(), process.arenas.end(),
                        [&region](const ArenaPlace& arena) { return inside(region, arena); });
  });
}

MappedMemory::MappedMemory(const RemoteProcess& process,
                           std::vector<std::shared_ptr<ArenaMappings::View>> views,
                           std::unique_ptr<RemoteMemory> other)
    : views_(std::move(views)),
      local_(mapped_regions(process, views_)),
      other_(std::move(other)),
      method_(other_ ? "arena+" + other_->method() : "arena") {}

// Calls here(address, offset, bytes) for what is mapped, there(offset, bytes) for what is not.
template <typename Here, typename There>
Status MappedMemory::walk(uint64_t offset, uint64_t bytes, const StopCondition& stop,
                          const Here& here, const There& there) {
  uint64_t unmapped = 0;  // bytes before `offset` that `there` has still to take, in one call
  const std::vector<Region>& regions = local_.regions();
  size_t i = local_.region_at(offset);
  for (uint64_t skipped = offset - local_.start(i); bytes > 0; ++i, skipped = 0) {
    for (uint64_t left = std::min(regions[i].bytes - skipped, bytes); left > 0;) {
      if (stop()) return {Code::kAborted, "reading state was stopped"};
      const uint64_t length = std::min(left, kStep);
      if (regions[i].address == 0) {
        unmapped += length;
      } else {
        if (unmapped > 0) HPCORE_RETURN_IF_ERROR(there(offset - unmapped, unmapped));
        unmapped = 0;
        here(reinterpret_cast<const void*>(regions[i].address + skipped), offset, length);
      }
      offset += length;
      skipped += length;
      left -= length;
      bytes -= length;
    }
  }
  return unmapped > 0 ? there(offset - unmapped, unmapped) : Status();
}

Status MappedMemory::read(uint64_t offset, uint64_t bytes, const RegionMap& into,
                          const StopCondition& stop) {
  Digester unused;
  return read_digested(offset, bytes, into, &unused, stop);
}

Status MappedMemory::read_digested(uint64_t offset, uint64_t bytes, const RegionMap& into,
                                   Digester* digester, const StopCondition& stop) {
  std::vector<iovec> pieces;
  return walk(
      offset, bytes, stop,
      [&](const void* from, uint64_t at, uint64_t length) {
        pieces.clear();
        into.pieces(at, length, &pieces);
        const auto* source = static_cast<const std::byte*>(from);
        for (const iovec& piece : pieces) {
          digester->copy(piece.iov_base, source, piece.iov_len);
          source += piece.iov_len;
        }
      },
      [&](uint64_t at, uint64_t length) {
        return other_->read_digested(at, length, into, digester, stop);
      });
}

Status MappedMemory::digest(uint64_t offset, uint64_t bytes, Digester* digester,
                            const StopCondition& stop) {
  return walk(
      offset, bytes, stop,
      [&](const void* from, uint64_t, uint64_t length) { digester->update(from, length); },
      [&](uint64_t at, uint64_t length) { return other_->digest(at, length, digester, stop); });
}

}  // namespace hpcore::transport
