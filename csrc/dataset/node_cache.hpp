// Purpose: results of costly preprocessing, kept once for all processes of a node: a ring of
// records in a memory file, found by key through a table of hints. Whoever has the descriptor may
// read and write; nobody has to be alive for the others to go on.
// Protocol: a writer reserves a stretch of the ring by moving `head`, fills it, and only then puts
// its place into the table. A reader copies the record out, then looks whether `head` has come
// round to it meanwhile, and checks the record's own key, place, length and CRC-32C. So a writer
// that is killed in mid-record is never seen; one that is stopped and goes on after the ring came
// round spoils a record, and the checksum tells. The table only hints: a lost entry is a miss.
// Full: the oldest records are overwritten. A record above a quarter of the ring is not kept.
// Threads: thread-safe, across processes.
// Ownership: owns its descriptor and mapping; memory is used when it is touched, and gone with the
// last descriptor.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "base/fd.hpp"
#include "base/mapping.hpp"
#include "base/status.hpp"

namespace hpcore::dataset {

struct CacheKey {
  uint64_t space = 0;  // which dataset under which function
  uint64_t position = 0;
};

class NodeCache {
 public:
  static constexpr uint64_t kLeastBytes = 1 << 20;

  struct Counters {
    uint64_t hits, misses, spoiled, kept, refused;
  };

  // A new memory file for `ring_bytes` of records (rounded up to 64 KiB).
  static Result<std::shared_ptr<NodeCache>> create(uint64_t ring_bytes);
  // One that another process made; `fd` is taken over.
  static Result<std::shared_ptr<NodeCache>> attach(int fd);

  // False: too large to be kept.
  bool put(CacheKey key, const void* data, uint64_t bytes);
  // False: not there (any more).
  bool get(CacheKey key, std::string* out);

  [[nodiscard]] int fd() const { return fd_.get(); }
  [[nodiscard]] uint64_t ring_bytes() const;
  // Since the memory was made, over all processes.
  [[nodiscard]] Counters counters() const;

 private:
  struct Header;
  struct Record;
  static constexpr unsigned kWays = 8;

  NodeCache(Fd fd, Mapping mapping);
  [[nodiscard]] Header& header() const;
  [[nodiscard]] std::atomic<uint64_t>* hints(CacheKey key) const;
  [[nodiscard]] std::byte* place(uint64_t at) const;
  [[nodiscard]] bool alive(uint64_t at) const;
  uint64_t reserve(uint64_t bytes);
  void publish(CacheKey key, uint64_t at);
  bool copy_out(CacheKey key, uint64_t at, std::string* out) const;

  Fd fd_;
  Mapping mapping_;
  uint64_t sets_ = 0;
};

}  // namespace hpcore::dataset
