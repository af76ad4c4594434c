// Purpose: the hash table and its allocator in one area of shared memory: lookup, publish, unlink,
// queues, recovery. Threads: externally synchronised: the caller holds the header's mutex.
// Ownership: a view; the memory belongs to whoever mapped it. Lifecycle: format() once, then
// construct a view in each process. A process may be killed between any two instructions in here;
// the next holder of the mutex calls rebuild().
#pragma once

#include <cstddef>
#include <functional>
#include <string_view>

#include "base/status.hpp"
#include "store/layout.hpp"

namespace hpcore::store {

class Table {
 public:
  Table(void* memory, size_t size_bytes)
      : base_(static_cast<char*>(memory)), size_bytes_(size_bytes) {}

  static Status format(void* memory, size_t size_bytes);

  [[nodiscard]] Header& header() const { return *reinterpret_cast<Header*>(base_); }
  static uint64_t hash_of(std::string_view key);
  [[nodiscard]] Shard& shard_of(std::string_view key) const {
    return header().shards[hash_of(key) % kShards];
  }

  [[nodiscard]] Node* find(std::string_view key, Kind kind) const;
  // A value, or a queue with something in it.
  [[nodiscard]] bool contains(std::string_view key) const;
  [[nodiscard]] std::string_view value_of(const Node& node) const;

  Status put(std::string_view key, std::string_view value);
  Status append(std::string_view key, std::string_view value);
  Status push(std::string_view key, std::string_view value);
  // Takes the oldest item of a queue that is not empty.
  std::string pop(Node& node);
  bool erase(std::string_view key, Kind kind);
  void each(const std::function<void(const Node&, std::string_view key)>& visit) const;

  // Finds all that is reachable, returns the rest to the free lists, counts keys and queues anew.
  void rebuild();
  [[nodiscard]] uint64_t free_bytes() const;

  // Tests only: the process kills itself at the n-th step from now on.
  void crash_after(int64_t steps) { crash_after_ = steps; }

 private:
  template <typename T>
  [[nodiscard]] T* at(uint64_t offset) const {
    return reinterpret_cast<T*>(base_ + offset);
  }
  [[nodiscard]] Block* block_at(uint64_t offset) const { return at<Block>(offset); }
  [[nodiscard]] std::atomic<uint64_t>& bucket_of(uint64_t hash) const;
  [[nodiscard]] std::string_view key_of(const Node& node) const;
  [[nodiscard]] uint64_t offset_of(const void* pointer) const {
    return static_cast<uint64_t>(static_cast<const char*>(pointer) - base_);
  }

  // Offsets of payloads; 0 when the area is full.
  uint64_t allocate(uint64_t payload_bytes);
  uint64_t take_free(uint64_t block_bytes, int tries);
  uint64_t take_fresh(uint64_t block_bytes);
  void split(uint64_t block, uint64_t block_bytes);
  void release(uint64_t payload);
  void link_free(uint64_t block);
  [[nodiscard]] uint64_t capacity_of(uint64_t payload) const;
  void mark(uint64_t payload) { block_at(payload - sizeof(Block))->link = 1; }
  void mark_reachable();
  void sweep();

  uint64_t new_value(std::string_view value, uint64_t capacity);
  Status link_node(std::string_view key, Kind kind, uint64_t content);
  [[nodiscard]] Status full(std::string_view key, uint64_t wanted_bytes) const;
  void step();

  char* base_;
  size_t size_bytes_;
  uint64_t pinned_ = 0;  // written but not reachable yet: rebuild() keeps it
  int64_t crash_after_ = 0;
};

}  // namespace hpcore::store
