#include "dataset/shared_bits.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdio>
#include <cstring>

namespace hpcore::dataset {
namespace {

constexpr uint64_t kHeaderWords = 8;
constexpr uint64_t kBitsMagic = 0x3153544942445048;  // "HPDBITS1"
constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

std::string key_of(int fd, const Head& head) {
  struct stat info{};
  if (fstat(fd, &info) != 0) return "";
  std::array<char, 128> key{};
  std::snprintf(key.data(), key.size(), "hpcore-checks-%u-%llx-%llx-%llx.%lx-", getuid(),
                static_cast<unsigned long long>(info.st_dev),
                static_cast<unsigned long long>(info.st_ino),
                static_cast<unsigned long long>(info.st_ctim.tv_sec), info.st_ctim.tv_nsec);
  std::string name = key.data();
  for (size_t i = 0; i < 8; ++i) {
    std::snprintf(key.data(), key.size(), "%02x", head.superblock.uuid[i]);
    name += key.data();
  }
  return name;
}

socklen_t address_of(const std::string& key, sockaddr_un* address) {
  address->sun_family = AF_UNIX;
  const size_t count = std::min(key.size(), sizeof address->sun_path - 1);
  std::memcpy(address->sun_path + 1, key.data(), count);  // abstract: a zero comes first
  return static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + count);
}

// The memfd of that name among the descriptors of the process that listens.
Fd open_of_listener(int socket, const std::string& key) {
  ucred peer{};
  socklen_t size = sizeof peer;
  if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0 || peer.uid != getuid() ||
      peer.pid <= 0)
    return {};
  const std::string folder = "/proc/" + std::to_string(peer.pid) + "/fd";
  DIR* listing = opendir(folder.c_str());
  if (listing == nullptr) return {};
  const std::string wanted = "/memfd:" + key + " (deleted)";
  Fd found;
  while (const dirent* entry = readdir(listing)) {
    std::array<char, 512> target{};
    const std::string name = folder + "/" + entry->d_name;
    const ssize_t length = readlink(name.c_str(), target.data(), target.size());
    if (length < 0 || wanted != std::string(target.data(), static_cast<size_t>(length))) continue;
    found = Fd(::open(name.c_str(), O_RDWR | O_CLOEXEC));
    break;
  }
  closedir(listing);
  return found;
}

}  // namespace

std::atomic<uint64_t>* SharedBits::words() const {
  return reinterpret_cast<std::atomic<uint64_t>*>(mapping_.data()) + kHeaderWords;
}

std::optional<SharedBits> SharedBits::find(int fd, const Head& head, uint64_t words) {
  const std::string key = key_of(fd, head);
  if (key.empty()) return std::nullopt;
  const size_t bytes = (kHeaderWords + words) * sizeof(uint64_t);
  SharedBits bits;
  bits.memory_ = Fd(memfd_create(key.c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!bits.memory_.valid() || ftruncate(bits.memory_.get(), static_cast<off_t>(bytes)) != 0 ||
      fcntl(bits.memory_.get(), F_ADD_SEALS, kSeals) != 0 ||
      pwrite(bits.memory_.get(), &kBitsMagic, sizeof kBitsMagic, 0) != sizeof kBitsMagic)
    return std::nullopt;
  sockaddr_un address{};
  const socklen_t length = address_of(key, &address);
  const Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket.valid()) return std::nullopt;
  const auto* named = reinterpret_cast<const sockaddr*>(&address);
  if (bind(socket.get(), named, length) == 0) {
    constexpr int kWaiting = 4096;  // who comes after so many others has bits of its own
    if (listen(socket.get(), kWaiting) != 0) return std::nullopt;
    bits.listening_ = Fd(dup(socket.get()));
    fcntl(bits.listening_.get(), F_SETFD, FD_CLOEXEC);
  } else {
    if (connect(socket.get(), named, length) != 0) return std::nullopt;
    bits.memory_ = open_of_listener(socket.get(), key);
    struct stat info{};
    if (!bits.memory_.valid() || fstat(bits.memory_.get(), &info) != 0 ||
        static_cast<size_t>(info.st_size) != bytes ||
        fcntl(bits.memory_.get(), F_GET_SEALS) != kSeals)
      return std::nullopt;
  }
  Result<Mapping> mapping = Mapping::map_shared(bits.memory_.get(), bytes);
  if (!mapping.ok()) return std::nullopt;
  bits.mapping_ = std::move(mapping.value());
  uint64_t magic;
  std::memcpy(&magic, bits.mapping_.data(), sizeof magic);
  if (magic != kBitsMagic) return std::nullopt;
  if (!bits.listening_.valid()) bits.memory_.reset();  // the mapping holds the memory
  return bits;
}

}  // namespace hpcore::dataset
