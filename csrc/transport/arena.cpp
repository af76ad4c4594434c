#include "transport/arena.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <fstream>

#include "transport/huge_pages.hpp"

namespace hpcore::transport {
namespace {

constexpr uint64_t kHugePage = 2 << 20;
constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW;
constexpr int kPopulateRead = 22;  // MADV_POPULATE_READ, Linux 5.14

std::string of_process(pid_t pid) { return " of process " + std::to_string(pid); }

// A file that holds one number, or "max".
uint64_t number_in(const char* path) {
  std::ifstream file(path);
  uint64_t value = UINT64_MAX;
  return file >> value ? value : UINT64_MAX;
}

// What may be allocated without driving the machine, or the container, out of memory. The kernel
// does not refuse: it would kill other processes for it.
uint64_t available_bytes() {
  uint64_t available = UINT64_MAX;
  std::ifstream file("/proc/meminfo");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("MemAvailable:", 0) == 0) available = std::stoull(line.substr(13)) << 10;
  }
  const uint64_t limit = number_in("/sys/fs/cgroup/memory.max");
  const uint64_t used = number_in("/sys/fs/cgroup/memory.current");
  if (limit != UINT64_MAX && used != UINT64_MAX) {
    available = std::min(available, limit - std::min(limit, used));
  }
  return available;
}

Status no_space(uint64_t bytes, uint64_t available) {
  return {Code::kNoSpace, "an arena of " + std::to_string(bytes >> 20) +
                              " MiB needs more memory than there is (" +
                              std::to_string(available >> 20) +
                              " MiB available, a tenth of it is left alone); the state can stay "
                              "where it is, receivers then read it by process_vm_readv"};
}

Result<Fd> open_descriptor(pid_t pid, const ArenaPlace& place) {
  const std::string path = "/proc/" + std::to_string(pid) + "/fd/" + std::to_string(place.fd);
  Fd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  const int error = errno;
  if (fd.valid()) return fd;
  if (error == ENOENT) {
    return Status(Code::kPeerDead, "arena" + of_process(pid) + ": " + path + " is gone");
  }
  if (error == EACCES || error == EPERM) {
    return Status(Code::kUnsupported, "arena: the kernel forbids opening " + path +
                                          " (another user, or a process that may not be dumped)");
  }
  return Status::system("opening the arena " + path, error);
}

Status check_descriptor(const Fd& fd, pid_t pid, const ArenaPlace& place) {
  struct stat found{};
  if (fstat(fd.get(), &found) != 0) return Status::system("fstat of an arena", errno);
  if (found.st_ino != place.inode || static_cast<uint64_t>(found.st_size) != place.bytes) {
    return {Code::kMismatch,
            "arena" + of_process(pid) + ": descriptor " + std::to_string(place.fd) +
                " is another file by now (inode " + std::to_string(found.st_ino) + ", " +
                std::to_string(found.st_size) + " bytes; expected " + std::to_string(place.inode) +
                ", " + std::to_string(place.bytes) + ")"};
  }
  const int seals = fcntl(fd.get(), F_GET_SEALS);
  if (seals < 0 || (seals & F_SEAL_SHRINK) == 0) {
    return {Code::kMismatch, "arena" + of_process(pid) +
                                 " is not sealed: it could shrink while "
                                 "it is read"};
  }
  return {};
}

}  // namespace

Result<Arena> Arena::create(uint64_t bytes) {
  const uint64_t whole = std::max((bytes + kHugePage - 1) / kHugePage, uint64_t{1}) * kHugePage;
  const uint64_t available = available_bytes();
  if (bytes > available - available / 10) return no_space(bytes, available);
  Fd fd(memfd_create("hpcore-arena", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd.valid()) return Status::system("memfd_create of an arena", errno);
  if (fallocate(fd.get(), 0, 0, static_cast<off_t>(whole)) != 0) {
    const int error = errno;
    if (error != ENOSPC && error != ENOMEM) return Status::system("fallocate of an arena", error);
    return no_space(bytes, available);
  }
  if (fcntl(fd.get(), F_ADD_SEALS, kSeals) != 0) return Status::system("sealing an arena", errno);
  struct stat found{};
  if (fstat(fd.get(), &found) != 0) return Status::system("fstat of an arena", errno);
  Result<Mapping> mapping = Mapping::map_shared(fd.get(), whole);
  if (!mapping.ok()) return mapping.status();
  const auto address = reinterpret_cast<uint64_t>(mapping.value().data());
  const uint64_t huge = use_huge_pages({{address, whole}});
  return Arena(std::move(fd), std::move(mapping.value()), found.st_ino, huge);
}

ArenaPlace Arena::place() const {
  return {fd_.get(), inode_, reinterpret_cast<uint64_t>(mapping_.data()), mapping_.size_bytes()};
}

ArenaMappings::View::~View() { munmap(const_cast<std::byte*>(data_), bytes_); }

Result<std::shared_ptr<ArenaMappings::View>> ArenaMappings::open(pid_t pid,
                                                                 const ArenaPlace& place) {
  {
    const std::scoped_lock lock(mutex_);
    const auto known = views_.find(place.inode);
    if (known != views_.end() && known->second.first == place.bytes) return known->second.second;
  }
  Result<Fd> fd = open_descriptor(pid, place);
  if (!fd.ok()) return fd.status();
  HPCORE_RETURN_IF_ERROR(check_descriptor(fd.value(), pid, place));
  void* at = mmap(nullptr, place.bytes, PROT_READ, MAP_SHARED, fd.value().get(), 0);
  const int error = errno;
  if (at == MAP_FAILED) return Status::system("mapping the arena" + of_process(pid), error);
  madvise(at, place.bytes, kPopulateRead);  // refused by older kernels: pages come one by one
  auto view = std::make_shared<View>(static_cast<const std::byte*>(at), place.bytes);
  const std::scoped_lock lock(mutex_);
  views_[place.inode] = {place.bytes, view};
  return view;
}

void ArenaMappings::keep_only(const std::vector<uint64_t>& inodes) {
  const std::scoped_lock lock(mutex_);
  std::erase_if(views_, [&inodes](const auto& entry) {
    return std::find(inodes.begin(), inodes.end(), entry.first) == inodes.end();
  });
}

uint64_t ArenaMappings::mapped_bytes() const {
  const std::scoped_lock lock(mutex_);
  uint64_t bytes = 0;
  for (const auto& [inode, entry] : views_) bytes += entry.first;
  return bytes;
}

}  // namespace hpcore::transport
