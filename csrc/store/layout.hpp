// Purpose: how a store lies in shared memory: header, buckets, arena of blocks. All references are
// offsets from the header, 0 means none, because each process maps the area elsewhere. Threads:
// everything here is guarded by the header's robust mutex, except the shards' words, which waiters
// read. Ownership: views of mapped memory. Lifecycle: format() once by the creator, then any number
// of processes attach. Crash rule: a change becomes visible through ONE store to a word (a bucket
// or `next`, `content`, `length`, `size`, `arena_end`); whatever else it wrote was unreachable
// before. What a dead process left unreachable is found by rebuild().
#pragma once

#include <pthread.h>

#include "base/doorbell.hpp"

namespace hpcore::store {

constexpr uint64_t kMagic = 0x313045524f545348;  // "HSTORE01"
constexpr uint32_t kShards = 64;
constexpr uint32_t kSizeClasses = 48;
constexpr uint64_t kBlockAlign = 16;
constexpr uint64_t kSmallestSplit = 64;  // a rest smaller than this stays with its block

// Keys are spread over shards so that a change wakes only those who wait for keys of that shard.
struct alignas(64) Shard {
  Doorbell doorbell;
  std::atomic<uint32_t> changes{0};
};

struct Header {
  std::atomic<uint64_t> magic;
  uint64_t size_bytes;
  uint64_t bucket_count;  // power of two
  uint64_t buckets;       // offset of the array of u64
  uint64_t arena_begin;
  std::atomic<uint64_t> arena_end;  // blocks lie one after the other from arena_begin to here
  uint64_t key_count;
  pthread_mutex_t mutex;
  uint64_t free_heads[kSizeClasses];
  Shard shards[kShards];
};

// In front of each block's payload. `size` counts this header too.
struct Block {
  std::atomic<uint64_t> size_bytes;
  uint64_t link;  // free: next free block; live: the mark of rebuild()
};
static_assert(sizeof(Block) == kBlockAlign);

enum class Kind : uint32_t { kValue = 1, kQueue = 2 };

struct Node {  // followed by the key
  std::atomic<uint64_t> next;
  std::atomic<uint64_t> content;  // a Value, or the first Item of a queue
  uint64_t hash;
  uint64_t last;    // queue: last Item
  uint64_t length;  // queue: number of items
  Kind kind;
  uint32_t key_size;
};

struct Value {  // followed by the bytes
  std::atomic<uint64_t> length;
};

struct Item {  // followed by the bytes
  std::atomic<uint64_t> next;
  uint64_t length;
};

}  // namespace hpcore::store
