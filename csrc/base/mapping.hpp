// Purpose: a shared mapping of a memfd that unmaps itself. Threads: externally synchronised.
// Ownership: move-only.
#pragma once

#include <cstddef>
#include <utility>

#include "base/status.hpp"

namespace hpcore {

class Mapping {
 public:
  Mapping() = default;
  Mapping(Mapping&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)),
        size_bytes_(std::exchange(other.size_bytes_, 0)) {}
  Mapping& operator=(Mapping&& other) noexcept;
  ~Mapping() { reset(); }

  static Result<Mapping> map_shared(int fd, size_t size_bytes);

  [[nodiscard]] std::byte* data() const { return data_; }
  [[nodiscard]] size_t size_bytes() const { return size_bytes_; }
  void reset();

 private:
  Mapping(std::byte* data, size_t size_bytes) : data_(data), size_bytes_(size_bytes) {}
  std::byte* data_ = nullptr;
  size_t size_bytes_ = 0;
};

}  // namespace hpcore
