// The allocator half of Table: blocks, free lists, recovery. See layout.hpp for the crash rule.
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <climits>
#include <csignal>
#include <cstring>
#include <new>

#include "store/table.hpp"

namespace hpcore::store {
namespace {

uint64_t align_up(uint64_t value, uint64_t to) { return (value + to - 1) / to * to; }

uint32_t size_class(uint64_t block_bytes) {
  const auto bits = static_cast<uint32_t>(std::bit_width(block_bytes));
  return bits < kSizeClasses ? bits : kSizeClasses - 1;
}

Status init_mutex(pthread_mutex_t* mutex) {
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
  pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
  const int error = pthread_mutex_init(mutex, &attributes);
  pthread_mutexattr_destroy(&attributes);
  return error == 0 ? Status() : Status::system("cannot make the store's robust mutex", error);
}

}  // namespace

Status Table::format(void* memory, size_t size_bytes) {
  auto* header = new (memory) Header();  // the memory is zero: empty buckets, untouched pages
  header->size_bytes = size_bytes;
  header->bucket_count = std::bit_floor(std::clamp<uint64_t>(size_bytes / 1024, 64, 65536));
  header->buckets = align_up(sizeof(Header), 64);
  header->arena_begin = align_up(header->buckets + 8 * header->bucket_count, 64);
  header->arena_end.store(header->arena_begin, std::memory_order_relaxed);
  HPCORE_RETURN_IF_ERROR(init_mutex(&header->mutex));
  header->magic.store(kMagic, std::memory_order_release);
  return {};
}

void Table::step() {
  if (crash_after_ > 0 && --crash_after_ == 0) kill(getpid(), SIGKILL);
}

uint64_t Table::capacity_of(uint64_t payload) const {
  return block_at(payload - sizeof(Block))->size_bytes.load(std::memory_order_relaxed) -
         sizeof(Block);
}

uint64_t Table::allocate(uint64_t payload_bytes) {
  if (payload_bytes > size_bytes_) return 0;
  const uint64_t block_bytes = align_up(payload_bytes + sizeof(Block), kBlockAlign);
  constexpr int kQuickTries = 16;
  uint64_t block = take_free(block_bytes, kQuickTries);
  if (block == 0) block = take_fresh(block_bytes);
  if (block == 0) {
    rebuild();  // joins neighbours that are free
    block = take_free(block_bytes, INT_MAX);
    if (block == 0) block = take_fresh(block_bytes);
  }
  return block == 0 ? 0 : block + sizeof(Block);
}

// Looks at `tries` blocks of the class that may hold too small ones; every block of a higher class
// fits.
uint64_t Table::take_free(uint64_t block_bytes, int tries) {
  const uint32_t own = size_class(block_bytes);
  for (uint32_t c = own; c < kSizeClasses; ++c) {
    uint64_t* link = &header().free_heads[c];
    for (int i = 0; *link != 0 && (c > own || i < tries); ++i) {
      const uint64_t block = *link;
      if (block_at(block)->size_bytes.load(std::memory_order_relaxed) >= block_bytes) {
        *link = block_at(block)->link;
        step();
        split(block, block_bytes);
        return block;
      }
      link = &block_at(block)->link;
    }
  }
  return 0;
}

uint64_t Table::take_fresh(uint64_t block_bytes) {
  const uint64_t block = header().arena_end.load(std::memory_order_relaxed);
  if (block_bytes > size_bytes_ - block) return 0;
  block_at(block)->size_bytes.store(block_bytes, std::memory_order_relaxed);
  block_at(block)->link = 0;
  step();
  header().arena_end.store(block + block_bytes, std::memory_order_release);
  step();
  return block;
}

// The rest gets its header first; shrinking the front block's size makes the rest a block of its
// own.
void Table::split(uint64_t block, uint64_t block_bytes) {
  const uint64_t rest_bytes =
      block_at(block)->size_bytes.load(std::memory_order_relaxed) - block_bytes;
  if (rest_bytes < kSmallestSplit) return;
  const uint64_t rest = block + block_bytes;
  block_at(rest)->size_bytes.store(rest_bytes, std::memory_order_relaxed);
  step();
  block_at(block)->size_bytes.store(block_bytes, std::memory_order_release);
  step();
  link_free(rest);
}

void Table::link_free(uint64_t block) {
  uint64_t& head =
      header().free_heads[size_class(block_at(block)->size_bytes.load(std::memory_order_relaxed))];
  block_at(block)->link = head;
  step();
  head = block;
}

void Table::release(uint64_t payload) {
  step();
  link_free(payload - sizeof(Block));
}

void Table::mark_reachable() {
  Header& h = header();
  h.key_count = 0;
  if (pinned_ != 0) mark(pinned_);
  for (uint64_t b = 0; b < h.bucket_count; ++b) {
    for (std::atomic<uint64_t>* link = &bucket_of(b); link->load() != 0;) {
      const uint64_t n = link->load();
      Node* node = at<Node>(n);
      if (node->content.load() == 0) {  // its last item was popped, then the process died
        link->store(node->next.load(), std::memory_order_release);
        continue;
      }
      link = &node->next;
      mark(n);
      h.key_count += 1;
      if (node->kind == Kind::kValue) {
        mark(node->content.load());
        continue;
      }
      node->length = 0;
      node->last = 0;
      for (uint64_t i = node->content.load(); i != 0; i = at<Item>(i)->next.load()) {
        mark(i);
        node->length += 1;
        node->last = i;
      }
    }
  }
}

void Table::sweep() {
  Header& h = header();
  const uint64_t end = h.arena_end.load();
  uint64_t before = 0;  // the free block that ends where `b` begins
  for (uint64_t b = h.arena_begin; b < end;) {
    const uint64_t bytes = block_at(b)->size_bytes.load();
    const uint64_t next = b + bytes;
    if (block_at(b)->link == 1) {
      before = 0;
    } else if (before != 0) {
      step();
      block_at(before)->size_bytes.fetch_add(bytes);
    } else {
      before = b;
    }
    b = next;
  }
  step();
  if (before != 0) h.arena_end.store(before);  // the last free block goes back whole
  for (uint64_t b = h.arena_begin; b < h.arena_end.load(); b += block_at(b)->size_bytes.load()) {
    if (block_at(b)->link != 1) link_free(b);
  }
}

void Table::rebuild() {
  Header& h = header();
  std::memset(h.free_heads, 0, sizeof(h.free_heads));
  step();
  for (uint64_t b = h.arena_begin; b < h.arena_end.load(); b += block_at(b)->size_bytes.load()) {
    block_at(b)->link = 0;
  }
  mark_reachable();
  step();
  sweep();
}

uint64_t Table::free_bytes() const {
  const Header& h = header();
  uint64_t total = size_bytes_ - h.arena_end.load();
  for (const uint64_t head : h.free_heads) {
    for (uint64_t b = head; b != 0; b = block_at(b)->link) total += block_at(b)->size_bytes.load();
  }
  return total;
}

}  // namespace hpcore::store
