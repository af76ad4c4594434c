#include "collective/shared_group.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

namespace hpcore::collective {
namespace {

constexpr uint64_t kMagic = 0x323050554F524748;  // "HGROUP02"
constexpr size_t kPage = 4096;
constexpr size_t kHeaderBytes = (sizeof(GroupHeader) + kPage - 1) / kPage * kPage;

}  // namespace

Result<std::shared_ptr<SharedGroup>> SharedGroup::create(int members, size_t area_bytes) {
  area_bytes = (area_bytes + kPage - 1) / kPage * kPage;
  HPCORE_RETURN_IF_ERROR(AreaLayout::of(area_bytes, members).status());
  const int fd = memfd_create("hpcore-group", MFD_CLOEXEC);
  if (fd < 0) return Status::system("memfd_create of a group's memory", errno);
  const size_t bytes = kHeaderBytes + area_bytes * static_cast<size_t>(members);
  if (ftruncate(fd, static_cast<off_t>(bytes)) != 0) {
    Status status = Status::system(
        "cannot size a group's memory to " + std::to_string(bytes) + " bytes", errno);
    ::close(fd);
    return status;
  }
  Result<std::shared_ptr<SharedGroup>> group = map(fd, bytes);
  if (!group.ok()) return group;
  GroupHeader& header = group.value()->header();
  if (getrandom(&header.nonce, sizeof(header.nonce), 0) != sizeof(header.nonce)) {
    header.nonce = monotonic_ns();
  }
  header.members = static_cast<uint64_t>(members);
  header.area_bytes = area_bytes;
  header.magic.store(kMagic, std::memory_order_release);
  return group;
}

Result<std::shared_ptr<SharedGroup>> SharedGroup::open(int fd) {
  struct stat info{};
  if (fstat(fd, &info) != 0) return Status::system("fstat of a group's descriptor", errno);
  const int own = fcntl(fd, F_DUPFD_CLOEXEC, 3);
  if (own < 0) return Status::system("cannot duplicate a group's descriptor", errno);
  Result<std::shared_ptr<SharedGroup>> group = map(own, static_cast<size_t>(info.st_size));
  if (group.ok()) HPCORE_RETURN_IF_ERROR(group.value()->check_header());
  return group;
}

Result<std::shared_ptr<SharedGroup>> SharedGroup::open(const std::string& address) {
  int pid = 0;
  int fd = -1;
  unsigned long long nonce = 0;
  if (std::sscanf(address.c_str(), "%d:%d:%llx", &pid, &fd, &nonce) != 3) {
    return Status(Code::kCorrupt,
                  "\"" + address + "\" is not the address of a group (pid:fd:nonce)");
  }
  const std::string path = "/proc/" + std::to_string(pid) + "/fd/" + std::to_string(fd);
  const int own = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (own < 0 && errno == ENOENT) {
    return Status(Code::kNotFound, path + " is gone: did the process that made the group end?");
  }
  if (own < 0) return Status::system("cannot open " + path, errno);
  Result<std::shared_ptr<SharedGroup>> group = open(own);
  ::close(own);
  if (group.ok() && group.value()->header().nonce != nonce) {
    return Status(Code::kNotFound, path + " is another group by now");
  }
  return group;
}

Result<std::shared_ptr<SharedGroup>> SharedGroup::map(int fd, size_t bytes) {
  void* memory = bytes < kHeaderBytes
                     ? MAP_FAILED
                     : mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (memory == MAP_FAILED) {
    Status status =
        bytes < kHeaderBytes
            ? Status(Code::kCorrupt,
                     "this descriptor holds no group: it has " + std::to_string(bytes) + " bytes")
            : Status::system("cannot map a group of " + std::to_string(bytes) + " bytes", errno);
    ::close(fd);
    return status;
  }
  return std::shared_ptr<SharedGroup>(new SharedGroup(fd, memory, bytes));
}

Status SharedGroup::check_header() const {
  if (header().magic.load(std::memory_order_acquire) == kMagic &&
      kHeaderBytes + header().area_bytes * header().members <= bytes_) {
    return {};
  }
  return {Code::kCorrupt, "this descriptor holds no group (or one of another hpcore version)"};
}

SharedGroup::~SharedGroup() {
  drop_descriptor();
  munmap(memory_, bytes_);
}

std::string SharedGroup::address() const {
  char text[64];
  std::snprintf(text, sizeof(text), "%d:%d:%llx", static_cast<int>(getpid()), fd_,
                static_cast<unsigned long long>(header().nonce));
  return text;
}

void SharedGroup::drop_descriptor() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

Result<ChannelMemory> SharedGroup::channel_memory(bool supervised) {
  Result<AreaLayout> layout = AreaLayout::of(header().area_bytes, members());
  HPCORE_RETURN_IF_ERROR(layout.status());
  ChannelMemory memory;
  memory.buffer_bytes = layout.value().buffer_bytes;
  memory.ring_bytes = layout.value().ring_bytes;
  memory.keep_alive = shared_from_this();
  std::byte* area = static_cast<std::byte*>(memory_) + kHeaderBytes;
  for (int rank = 0; rank < members(); ++rank, area += header().area_bytes) {
    memory.members.push_back(layout.value().member(area, &header().doorbells[rank]));
    if (!supervised) memory.members.back().identity = &header().identities[rank];
  }
  return memory;
}

std::shared_ptr<Revocation> SharedGroup::revocation() {
  return std::make_shared<Revocation>(&header().revoked, shared_from_this());
}

void SharedGroup::revoke(uint64_t generation) {
  std::atomic<uint64_t>& word = header().revoked;
  uint64_t seen = word.load(std::memory_order_acquire);
  while (seen < generation && !word.compare_exchange_weak(seen, generation)) {
  }
  for (int rank = 0; rank < members(); ++rank) header().doorbells[rank].ring();
}

}  // namespace hpcore::collective
