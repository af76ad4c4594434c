#include "base/mapping.hpp"

#include <sys/mman.h>

#include <cerrno>

namespace hpcore {

Mapping& Mapping::operator=(Mapping&& other) noexcept {
  if (this != &other) {
    reset();
    data_ = std::exchange(other.data_, nullptr);
    size_bytes_ = std::exchange(other.size_bytes_, 0);
  }
  return *this;
}

Result<Mapping> Mapping::map_shared(int fd, size_t size_bytes) {
  void* at = mmap(nullptr, size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (at == MAP_FAILED) {
    const int error = errno;
    return Status::system("mapping " + std::to_string(size_bytes) + " bytes of shared memory",
                          error);
  }
  return Mapping(static_cast<std::byte*>(at), size_bytes);
}

void Mapping::reset() {
  if (data_ != nullptr) munmap(data_, size_bytes_);
  data_ = nullptr;
  size_bytes_ = 0;
}

}  // namespace hpcore
