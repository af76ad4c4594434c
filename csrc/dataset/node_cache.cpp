#include "dataset/node_cache.hpp"

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>

#include "base/digest.hpp"

namespace hpcore::dataset {
namespace {

constexpr uint64_t kMagic = 0x3145484341434448;  // "HDCACHE1"
constexpr uint64_t kHeaderBytes = 4096;
constexpr uint64_t kGrain = 64;  // records begin at multiples of it
constexpr uint64_t kPlaceBits = 48;

uint64_t scatter(uint64_t value) {  // splitmix64's finaliser, as in permutation.cpp
  value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9;
  value = (value ^ (value >> 27)) * 0x94D049BB133111EB;
  return value ^ (value >> 31);
}

uint64_t hash_of(CacheKey key) {
  return scatter(scatter(key.space + 0x9E3779B97F4A7C15) ^ key.position);
}

// An entry of the table: 16 bits of the key's hash, and the place in grains, plus one.
uint64_t hint_of(CacheKey key, uint64_t at) {
  return (hash_of(key) >> kPlaceBits) << kPlaceBits | (at / kGrain + 1);
}

uint64_t sets_for(uint64_t ring_bytes) { return std::bit_ceil(ring_bytes / (8 * 1024)); }

}  // namespace

struct NodeCache::Header {
  uint64_t magic;
  uint64_t ring_bytes;
  alignas(64) std::atomic<uint64_t> head;  // bytes ever reserved
  alignas(64) std::atomic<uint64_t> hits, misses, spoiled, kept, refused;
};

struct NodeCache::Record {
  CacheKey key;
  uint64_t at;
  uint64_t bytes;
  uint32_t crc;  // of what is before it and of the data
  uint32_t reserved;

  [[nodiscard]] uint32_t checksum(const void* data) const {
    return crc32c(data, bytes, crc32c(this, offsetof(Record, crc)));
  }
};

NodeCache::NodeCache(Fd fd, Mapping mapping) : fd_(std::move(fd)), mapping_(std::move(mapping)) {}

NodeCache::Header& NodeCache::header() const { return *reinterpret_cast<Header*>(mapping_.data()); }

uint64_t NodeCache::ring_bytes() const { return header().ring_bytes; }

Result<std::shared_ptr<NodeCache>> NodeCache::create(uint64_t ring_bytes) {
  if (ring_bytes < kLeastBytes || ring_bytes > uint64_t{1} << 44) {
    return Status(Code::kInvalid, "a node cache needs 1 MiB to 16 TiB, not " +
                                      std::to_string(ring_bytes) + " bytes");
  }
  ring_bytes = (ring_bytes + 65535) / 65536 * 65536;
  Fd fd(memfd_create("hpcore-data", MFD_CLOEXEC));
  if (!fd.valid()) return Status::system("making the memory of a node cache", errno);
  const uint64_t total = kHeaderBytes + sets_for(ring_bytes) * kWays * 8 + ring_bytes;
  if (ftruncate(fd.get(), static_cast<off_t>(total)) != 0) {
    return Status::system("sizing a node cache to " + std::to_string(total) + " bytes", errno);
  }
  Header first{};
  first.magic = kMagic;
  first.ring_bytes = ring_bytes;
  if (pwrite(fd.get(), &first, sizeof first, 0) != static_cast<ssize_t>(sizeof first)) {
    return Status::system("writing the head of a node cache", errno);
  }
  const int number = dup(fd.get());
  if (number < 0) return Status::system("duplicating the descriptor of a node cache", errno);
  return attach(number);
}

Result<std::shared_ptr<NodeCache>> NodeCache::attach(int number) {
  Fd fd(number);
  struct stat info{};
  if (fstat(fd.get(), &info) != 0) return Status::system("looking at a node cache", errno);
  const auto size = static_cast<uint64_t>(info.st_size);
  if (size < kHeaderBytes + kLeastBytes) {
    return Status(Code::kCorrupt,
                  "this is no node cache: it has " + std::to_string(size) + " bytes");
  }
  Result<Mapping> mapping = Mapping::map_shared(fd.get(), size);
  HPCORE_RETURN_IF_ERROR(mapping.status());
  std::shared_ptr<NodeCache> cache(  // shared: several views of a process use it
      new NodeCache(std::move(fd), std::move(mapping.value())));
  const Header& header = cache->header();
  cache->sets_ = sets_for(header.ring_bytes);
  if (header.magic != kMagic ||
      size != kHeaderBytes + cache->sets_ * kWays * 8 + header.ring_bytes) {
    return Status(Code::kCorrupt, "this is no node cache of this version of hpcore");
  }
  return cache;
}

std::atomic<uint64_t>* NodeCache::hints(CacheKey key) const {
  auto* table = reinterpret_cast<std::atomic<uint64_t>*>(mapping_.data() + kHeaderBytes);
  return table + (hash_of(key) & (sets_ - 1)) * kWays;
}

std::byte* NodeCache::place(uint64_t at) const {
  return mapping_.data() + kHeaderBytes + sets_ * kWays * 8 + at % ring_bytes();
}

// Whether nobody has reserved what lies there since. `head` moves before anything is written.
bool NodeCache::alive(uint64_t at) const {
  return header().head.load(std::memory_order_seq_cst) <= at + ring_bytes();
}

uint64_t NodeCache::reserve(uint64_t bytes) {
  std::atomic<uint64_t>& head = header().head;
  uint64_t before = head.load(std::memory_order_relaxed);
  for (;;) {
    uint64_t at = before;
    if (at % ring_bytes() + bytes > ring_bytes()) at += ring_bytes() - at % ring_bytes();
    if (head.compare_exchange_weak(before, at + bytes, std::memory_order_seq_cst)) return at;
  }
}

void NodeCache::publish(CacheKey key, uint64_t at) {
  std::atomic<uint64_t>* set = hints(key);
  const uint64_t hint = hint_of(key, at);
  constexpr uint64_t kPlace = (uint64_t{1} << kPlaceBits) - 1;
  unsigned oldest = 0;
  uint64_t least = UINT64_MAX;
  for (unsigned way = 0; way < kWays; ++way) {
    const uint64_t entry = set[way].load(std::memory_order_relaxed);
    if (entry >> kPlaceBits == hint >> kPlaceBits && entry != 0) {  // most likely the same key
      oldest = way;
      break;
    }
    if ((entry & kPlace) < least) {
      least = entry & kPlace;
      oldest = way;
    }
  }
  set[oldest].store(hint, std::memory_order_release);
}

bool NodeCache::put(CacheKey key, const void* data, uint64_t bytes) {
  const uint64_t whole = (sizeof(Record) + bytes + kGrain - 1) / kGrain * kGrain;
  if (bytes > ring_bytes() || whole > ring_bytes() / 4) {
    header().refused.fetch_add(1, std::memory_order_relaxed);
    return false;
  }
  Record record{key, reserve(whole), bytes, 0, 0};
  record.crc = record.checksum(data);
  std::byte* to = place(record.at);
  std::memcpy(to, &record, sizeof record);
  std::memcpy(to + sizeof record, data, bytes);
  publish(key, record.at);
  header().kept.fetch_add(1, std::memory_order_relaxed);
  return true;
}

bool NodeCache::copy_out(CacheKey key, uint64_t at, std::string* out) const {
  Record record{};
  std::memcpy(&record, place(at), sizeof record);
  if (record.key.space != key.space || record.key.position != key.position || record.at != at ||
      record.bytes > ring_bytes() / 4 ||
      at % ring_bytes() + sizeof record + record.bytes > ring_bytes()) {
    return false;
  }
  out->assign(reinterpret_cast<const char*>(place(at)) + sizeof record, record.bytes);
  std::atomic_thread_fence(std::memory_order_seq_cst);
  return alive(at) && record.checksum(out->data()) == record.crc;
}

bool NodeCache::get(CacheKey key, std::string* out) {
  Header& head = header();
  std::atomic<uint64_t>* set = hints(key);
  const uint64_t tag = hint_of(key, 0) >> kPlaceBits;
  constexpr uint64_t kPlace = (uint64_t{1} << kPlaceBits) - 1;
  for (unsigned way = 0; way < kWays; ++way) {
    const uint64_t entry = set[way].load(std::memory_order_acquire);
    if (entry == 0 || entry >> kPlaceBits != tag) continue;
    const uint64_t at = ((entry & kPlace) - 1) * kGrain;
    if (!alive(at)) continue;
    if (copy_out(key, at, out)) {
      head.hits.fetch_add(1, std::memory_order_relaxed);
      return true;
    }
    head.spoiled.fetch_add(1, std::memory_order_relaxed);
  }
  out->clear();
  head.misses.fetch_add(1, std::memory_order_relaxed);
  return false;
}

NodeCache::Counters NodeCache::counters() const {
  const Header& h = header();
  return {h.hits.load(), h.misses.load(), h.spoiled.load(), h.kept.load(), h.refused.load()};
}

}  // namespace hpcore::dataset
