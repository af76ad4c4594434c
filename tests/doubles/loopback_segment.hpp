// What the members of a loopback communicator share: a memfd, made by whoever asks for a unique id,
// opened by the others through /proc/<pid>/fd. Between each two members lies a byte stream of
// bounded size, as between two GPUs: a send that nobody receives does not end.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <string>

namespace loopback {

constexpr int kMaxRanks = 32;
constexpr int kMaxChildren = 64;
constexpr size_t kStreamBytes = 256 << 10;

struct ByteStream {
  alignas(64) std::atomic<uint64_t> written{0};
  alignas(64) std::atomic<uint64_t> taken{0};
  alignas(64) unsigned char data[kStreamBytes];

  size_t put(const unsigned char* from, size_t bytes) {
    const uint64_t at = written.load();
    bytes = std::min({bytes, kStreamBytes - (at - taken.load()), kStreamBytes - at % kStreamBytes});
    std::memcpy(data + at % kStreamBytes, from, bytes);
    written.store(at + bytes);
    return bytes;
  }
  size_t take(unsigned char* to, size_t bytes) {
    const uint64_t at = taken.load();
    bytes = std::min({bytes, size_t(written.load() - at), kStreamBytes - at % kStreamBytes});
    std::memcpy(to, data + at % kStreamBytes, bytes);
    taken.store(at + bytes);
    return bytes;
  }
};

struct Place {  // where a segment is to be found; the beginning of a unique id
  uint64_t magic = 0, pid = 0, fd = 0, inode = 0;
};
constexpr uint64_t kSegmentMagic = 0x4c4f4f504e43434c;

struct Child {  // a communicator made of this one: shrunk or grown
  std::atomic<uint32_t> known{0};
  Place place;
};

struct Segment {
  std::atomic<uint64_t> ranks{0};
  std::atomic<uint32_t> joined[kMaxRanks];
  Child children[kMaxChildren];
  ByteStream streams[kMaxRanks][kMaxRanks];  // [from][to]

  // A new one. The descriptor stays open in this process: that is what the others open.
  static bool create(Place* place) {
    const int fd = memfd_create("loopback-nccl", MFD_CLOEXEC);
    struct stat facts{};
    if (fd < 0 || ftruncate(fd, sizeof(Segment)) != 0 || fstat(fd, &facts) != 0) return false;
    *place = {kSegmentMagic, uint64_t(getpid()), uint64_t(fd), uint64_t(facts.st_ino)};
    return true;
  }
  static Segment* open(const Place& place) {
    if (place.magic != kSegmentMagic) return nullptr;
    const std::string path =
        "/proc/" + std::to_string(place.pid) + "/fd/" + std::to_string(place.fd);
    const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
    struct stat facts{};
    void* base = MAP_FAILED;
    if (fd >= 0 && fstat(fd, &facts) == 0 && facts.st_ino == place.inode) {
      base = mmap(nullptr, sizeof(Segment), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    }
    if (fd >= 0) close(fd);
    return base == MAP_FAILED ? nullptr : static_cast<Segment*>(base);
  }
};

}  // namespace loopback
