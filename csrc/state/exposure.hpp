// Purpose: what a source lays open in its slot's exposure area: the layout it serves, the digests
// of its share of the chunks, and a staging area. Of N chunks and K sources, source d digests the
// block [d * N / K, (d + 1) * N / K), entry by entry.
// Everything is tagged with its generation: the area is never cleared, entries of older generations
// are simply foreign.
// Threads: one process writes (its publishing threads write different entries), others read.
// Ownership: a view of the node segment's memory.
#pragma once

#include <atomic>
#include <cstdint>

#include "base/digest.hpp"
#include "transport/staging.hpp"

namespace hpcore::state {

struct DigestEntry {
  std::atomic<uint64_t> tag{0};
  std::atomic<uint64_t> low{0};
  std::atomic<uint64_t> high{0};
};

// What source and receiver must agree on.
struct Layout {
  uint64_t layout_word = 0;  // RegionMap::layout_word
  uint64_t total_bytes = 0;
  uint64_t chunk_bytes = 0;
  uint64_t sources = 0;
  bool operator==(const Layout&) const = default;
};

class Exposure {
 public:
  static constexpr size_t kBytes = 1 << 20;
  static constexpr size_t kStagingOffset = kBytes / 2;
  static constexpr size_t kHeaderBytes = 4096;
  static constexpr size_t kEntries = (kStagingOffset - kHeaderBytes) / sizeof(DigestEntry);

  explicit Exposure(void* area) : area_(static_cast<unsigned char*>(area)) {}

  // Source side. open: announces the layout; publish: makes entry `index` readable.
  void open(uint64_t generation, const Layout& layout);
  void publish(uint64_t generation, size_t index, const Digest128& digest);

  // Receiver side. False: not there (yet).
  [[nodiscard]] bool layout(uint64_t generation, Layout* out) const;
  [[nodiscard]] bool digest(uint64_t generation, size_t index, Digest128* out) const;

  [[nodiscard]] void* area() const { return area_; }
  // The owner of the area sleeps here while it pulls; its sources ring it for each digest.
  [[nodiscard]] Doorbell* receiver_doorbell() const { return &header()->receiver; }
  [[nodiscard]] transport::StagingArea* staging() const {
    return reinterpret_cast<transport::StagingArea*>(area_ + kStagingOffset);
  }

 private:
  struct Header {
    std::atomic<uint64_t> tag{0};
    std::atomic<uint64_t> layout_word, total_bytes, chunk_bytes, sources;
    Doorbell receiver;
  };
  static_assert(sizeof(Header) <= kHeaderBytes);
  [[nodiscard]] Header* header() const { return reinterpret_cast<Header*>(area_); }
  [[nodiscard]] DigestEntry* entry(size_t index) const {
    return reinterpret_cast<DigestEntry*>(area_ + kHeaderBytes) + index;
  }
  unsigned char* area_;
};

// The chunk size used: at least what was asked for (0: the default), and so large that every
// source's digests fit.
uint64_t effective_chunk_bytes(uint64_t asked_bytes, uint64_t total_bytes, uint64_t sources);

inline uint64_t chunk_count(uint64_t total_bytes, uint64_t chunk_bytes) {
  return (total_bytes + chunk_bytes - 1) / chunk_bytes;
}

// The first chunk that source `index` of `sources` digests; what it digests ends where the next
// begins.
inline uint64_t first_digested(uint64_t index, uint64_t chunks, uint64_t sources) {
  return index * chunks / sources;
}
// Who digests a chunk.
inline uint64_t publisher_of(uint64_t chunk, uint64_t chunks, uint64_t sources) {
  return ((chunk + 1) * sources - 1) / chunks;
}

constexpr uint64_t kMinChunkBytes = 1 << 20;

}  // namespace hpcore::state
