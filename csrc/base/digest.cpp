#include "base/digest.hpp"

#include <algorithm>
#include <cstring>

namespace hpcore {
namespace {

constexpr size_t kStreamedBytes = 1 << 10;  // below, what is copied is likely read soon
constexpr size_t kCachedBytes = 64 << 10;   // copied and then digested in pieces of this size

}  // namespace

uint32_t crc32c(const void* data, size_t bytes, uint32_t before) {
  const auto* at = static_cast<const unsigned char*>(data);
  return ~fastest_digest_kernel().stream(~before, at, bytes);
}

Digester::Digester(const DigestKernel& kernel) : kernel_(&kernel) { lanes_.fill(0xFFFFFFFF); }

// Completes a stride that was begun; returns how many bytes that took.
size_t Digester::fill_carry(const unsigned char* at, size_t bytes) {
  if (carried_ == 0) return 0;
  const size_t taken = std::min(kStride - carried_, bytes);
  std::memcpy(carry_.data() + carried_, at, taken);
  carried_ += taken;
  if (carried_ < kStride) return taken;
  kernel_->lanes(lanes_, carry_.data(), 1);
  carried_ = 0;
  return taken;
}

void Digester::update(const void* data, size_t bytes) {
  if (bytes == 0) return;
  const auto* at = static_cast<const unsigned char*>(data);
  total_bytes_ += bytes;
  const size_t taken = fill_carry(at, bytes);
  at += taken;
  bytes -= taken;
  if (bytes == 0) return;
  kernel_->lanes(lanes_, at, bytes / kStride);
  carried_ = bytes % kStride;
  if (carried_ > 0) std::memcpy(carry_.data(), at + (bytes - carried_), carried_);
}

void Digester::copy(void* to, const void* from, size_t bytes) {
  auto* into = static_cast<unsigned char*>(to);
  const auto* at = static_cast<const unsigned char*>(from);
  if (bytes >= kStreamedBytes && kernel_->copy != nullptr) {
    const size_t taken = fill_carry(at, bytes);
    std::memcpy(into, at, taken);
    const size_t strides = (bytes - taken) / kStride;
    kernel_->copy(lanes_, into + taken, at + taken, strides);
    const size_t done = taken + strides * kStride;
    total_bytes_ += done;
    into += done;
    at += done;
    bytes -= done;
  }
  while (bytes > 0) {
    const size_t piece = std::min(bytes, kCachedBytes);
    std::memcpy(into, at, piece);
    update(into, piece);
    into += piece;
    at += piece;
    bytes -= piece;
  }
}

Digest128 Digester::finish() const {
  Digest128 lanes = lanes_;
  if (carried_ > 0) {
    std::array<unsigned char, kStride> last{};
    std::memcpy(last.data(), carry_.data(), carried_);
    kernel_->lanes(lanes, last.data(), 1);
  }
  std::array<unsigned char, kStride> length{};
  for (size_t i = 0; i < kStride; ++i) {
    length[i] = static_cast<unsigned char>(total_bytes_ >> (8 * (i % 8)));
  }
  kernel_->lanes(lanes, length.data(), 1);
  for (uint32_t& lane : lanes) lane = ~lane;
  return lanes;
}

Digest128 digest128(const void* data, size_t bytes, const DigestKernel& kernel) {
  Digester digester(kernel);
  digester.update(data, bytes);
  return digester.finish();
}

}  // namespace hpcore
