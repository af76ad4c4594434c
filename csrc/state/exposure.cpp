#include "state/exposure.hpp"

#include <algorithm>

namespace hpcore::state {
namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;

uint64_t tag_of(uint64_t generation) { return generation + 1; }  // 0: never written

// A digest's tag covers the digest: one that is half written, as a card of another host may see it,
// does not pass for whole.
uint64_t tag_of(uint64_t generation, uint64_t low, uint64_t high) {
  auto mix = [](uint64_t word) {  // the finaliser of splitmix64
    word = (word ^ word >> 30) * 0xbf58476d1ce4e5b9;
    word = (word ^ word >> 27) * 0x94d049bb133111eb;
    return word ^ word >> 31;
  };
  return std::max<uint64_t>(mix(mix(mix(generation + 1) + low) + high), 1);
}

}  // namespace

void Exposure::open(uint64_t generation, const Layout& layout) {
  Header& head = *header();
  head.tag.store(0, kRelaxed);
  std::atomic_thread_fence(std::memory_order_release);
  head.layout_word.store(layout.layout_word, kRelaxed);
  head.total_bytes.store(layout.total_bytes, kRelaxed);
  head.chunk_bytes.store(layout.chunk_bytes, kRelaxed);
  head.sources.store(layout.sources, kRelaxed);
  head.tag.store(tag_of(generation), std::memory_order_release);
}

void Exposure::publish(uint64_t generation, size_t index, const Digest128& digest) {
  DigestEntry& at = *entry(index);
  const uint64_t low = digest[0] | static_cast<uint64_t>(digest[1]) << 32;
  const uint64_t high = digest[2] | static_cast<uint64_t>(digest[3]) << 32;
  at.tag.store(0, kRelaxed);
  std::atomic_thread_fence(std::memory_order_release);
  at.low.store(low, kRelaxed);
  at.high.store(high, kRelaxed);
  at.tag.store(tag_of(generation, low, high), std::memory_order_release);
}

bool Exposure::layout(uint64_t generation, Layout* out) const {
  const Header& head = *header();
  if (head.tag.load(std::memory_order_acquire) != tag_of(generation)) return false;
  *out = {head.layout_word.load(kRelaxed), head.total_bytes.load(kRelaxed),
          head.chunk_bytes.load(kRelaxed), head.sources.load(kRelaxed)};
  std::atomic_thread_fence(std::memory_order_acquire);
  return head.tag.load(kRelaxed) == tag_of(generation);
}

bool Exposure::digest(uint64_t generation, size_t index, Digest128* out) const {
  const DigestEntry& at = *entry(index);
  const uint64_t tag = at.tag.load(std::memory_order_acquire);
  const uint64_t low = at.low.load(kRelaxed);
  const uint64_t high = at.high.load(kRelaxed);
  if (tag != tag_of(generation, low, high)) return false;
  *out = {static_cast<uint32_t>(low), static_cast<uint32_t>(low >> 32), static_cast<uint32_t>(high),
          static_cast<uint32_t>(high >> 32)};
  return true;
}

uint64_t effective_chunk_bytes(uint64_t asked_bytes, uint64_t total_bytes, uint64_t sources) {
  const uint64_t entries = Exposure::kEntries * std::max<uint64_t>(sources, 1);
  const uint64_t needed = (total_bytes + entries - 1) / entries;
  const uint64_t bytes = std::max({asked_bytes, needed, kMinChunkBytes});
  return (bytes + 4095) / 4096 * 4096;
}

}  // namespace hpcore::state
