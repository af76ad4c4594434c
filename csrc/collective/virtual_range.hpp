// Purpose: a list of buffers seen as one range of bytes, copied in and out piecewise, never
// flattened. Threads: one thread. Ownership: none: the buffers belong to the caller.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <span>
#include <vector>

namespace hpcore::collective {

struct Buffer {
  void* data = nullptr;
  size_t elements = 0;
};
using Buffers = std::span<const Buffer>;

class VirtualRange {
 public:
  VirtualRange(Buffers buffers, size_t element_bytes) : element_bytes_(element_bytes) {
    if (buffers.size() == 1) {  // the usual case: no allocation
      one_ = {static_cast<std::byte*>(buffers[0].data), 0, buffers[0].elements * element_bytes};
      pieces_ = {&one_, 1};
      bytes_ = one_.end;
      return;
    }
    many_.reserve(buffers.size());
    for (const Buffer& buffer : buffers) {
      if (buffer.elements == 0) continue;
      const size_t end = bytes_ + buffer.elements * element_bytes;
      many_.push_back({static_cast<std::byte*>(buffer.data), bytes_, end});
      bytes_ = end;
    }
    pieces_ = many_;
  }
  VirtualRange(const VirtualRange&) = delete;
  VirtualRange& operator=(const VirtualRange&) = delete;

  [[nodiscard]] size_t bytes() const { return bytes_; }
  [[nodiscard]] size_t elements() const { return bytes_ / element_bytes_; }

  // Calls visit(std::byte* data, size_t length, size_t done) for each contiguous part of
  // [offset, offset + length), in order; `done` bytes of it came before.
  template <typename Visit>
  void each(size_t offset, size_t length, Visit visit) {
    size_t done = 0;
    for (size_t i = piece_at(offset); done < length; ++i) {
      const Piece& piece = pieces_[i];
      const size_t at = offset + done;
      const size_t n = std::min(length - done, piece.end - at);
      visit(piece.data + (at - piece.begin), n, done);
      done += n;
      last_ = i;
    }
  }
  void copy_to(void* target, size_t offset, size_t length) {
    each(offset, length, [&](const std::byte* data, size_t n, size_t done) {
      std::memcpy(static_cast<std::byte*>(target) + done, data, n);
    });
  }
  void copy_from(const void* source, size_t offset, size_t length) {
    each(offset, length, [&](std::byte* data, size_t n, size_t done) {
      std::memcpy(data, static_cast<const std::byte*>(source) + done, n);
    });
  }

 private:
  struct Piece {
    std::byte* data = nullptr;
    size_t begin = 0, end = 0;
  };

  // Accesses are mostly sequential: look where the last one ended, then search.
  [[nodiscard]] size_t piece_at(size_t offset) const {
    for (size_t i = last_; i < std::min(last_ + 2, pieces_.size()); ++i) {
      if (pieces_[i].begin <= offset && offset < pieces_[i].end) return i;
    }
    const auto found =
        std::upper_bound(pieces_.begin(), pieces_.end(), offset,
                         [](size_t value, const Piece& piece) { return value < piece.end; });
    return static_cast<size_t>(found - pieces_.begin());
  }

  size_t element_bytes_;
  size_t bytes_ = 0;
  Piece one_;
  std::vector<Piece> many_;
  std::span<const Piece> pieces_;
  size_t last_ = 0;
};

}  // namespace hpcore::collective
