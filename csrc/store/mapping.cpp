// Where a store's memory comes from.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "store/shared_store.hpp"

namespace hpcore {
namespace {

struct Unmap {
  size_t size_bytes;
  void operator()(void* memory) const { munmap(memory, size_bytes); }
};

}  // namespace

Status SharedStore::format(void* memory, size_t size_bytes) {
  if (size_bytes < kSmallestBytes) {
    return {Code::kInvalid, "a store needs at least " + std::to_string(kSmallestBytes) +
                                " bytes, got " + std::to_string(size_bytes)};
  }
  return store::Table::format(memory, size_bytes);
}

Result<std::shared_ptr<SharedStore>> SharedStore::attach(void* memory, size_t size_bytes,
                                                         std::shared_ptr<void> keep_alive) {
  const auto* header = static_cast<const store::Header*>(memory);
  if (size_bytes < sizeof(store::Header) ||
      header->magic.load(std::memory_order_acquire) != store::kMagic) {
    return Status(Code::kCorrupt, "this memory of " + std::to_string(size_bytes) +
                                      " bytes holds no store (or one of another hpcore version)");
  }
  if (header->size_bytes > size_bytes) {
    return Status(Code::kCorrupt, "the store says it has " + std::to_string(header->size_bytes) +
                                      " bytes, the memory has only " + std::to_string(size_bytes));
  }
  return std::shared_ptr<SharedStore>(
      new SharedStore(memory, header->size_bytes, std::move(keep_alive), -1));
}

// Takes the descriptor. A fresh memfd is formatted first.
Result<std::shared_ptr<SharedStore>> SharedStore::map(int fd, bool fresh) {
  struct stat info{};
  if (fstat(fd, &info) != 0) {
    Status status = Status::system("fstat of the store's descriptor", errno);
    ::close(fd);
    return status;
  }
  const auto size_bytes = static_cast<size_t>(info.st_size);
  void* memory = size_bytes == 0
                     ? MAP_FAILED
                     : mmap(nullptr, size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (memory == MAP_FAILED) {
    Status status = Status::system("cannot map a store of " + std::to_string(size_bytes) + " bytes",
                                   size_bytes == 0 ? EINVAL : errno);
    ::close(fd);
    return status;
  }
  const std::shared_ptr<void> mapped(memory, Unmap{size_bytes});
  if (fresh) {
    if (Status status = format(memory, size_bytes); !status.ok()) {
      ::close(fd);
      return status;
    }
  }
  auto store = attach(memory, size_bytes, mapped);
  if (!store.ok()) {
    ::close(fd);
    return store;
  }
  store.value()->fd_ = fd;
  return store;
}

Result<std::shared_ptr<SharedStore>> SharedStore::create(size_t size_bytes,
                                                         const std::string& name) {
  const int fd = memfd_create(name.c_str(), MFD_CLOEXEC);
  if (fd < 0) return Status::system("memfd_create", errno);
  if (ftruncate(fd, static_cast<off_t>(size_bytes)) != 0) {
    Status status =
        Status::system("cannot give a store " + std::to_string(size_bytes) + " bytes", errno);
    ::close(fd);
    return status;
  }
  return map(fd, true);
}

Result<std::shared_ptr<SharedStore>> SharedStore::open(int fd) {
  const int own = fcntl(fd, F_DUPFD_CLOEXEC, 3);
  if (own < 0) return Status::system("cannot duplicate descriptor " + std::to_string(fd), errno);
  return map(own, false);
}

Result<std::shared_ptr<SharedStore>> SharedStore::open(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (fd < 0) return Status::system("cannot open the store at " + path, errno);
  return map(fd, false);
}

SharedStore::~SharedStore() {
  if (fd_ >= 0) ::close(fd_);
}

}  // namespace hpcore
