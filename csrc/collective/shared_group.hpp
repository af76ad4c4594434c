// Purpose: the memory of a channel of its own: a memfd with one doorbell and one area per member.
// Nothing has a name in the file system: when the last process is gone, so is the memory.
// Threads: thread-safe after construction. Ownership: owns the descriptor until drop_descriptor(),
// and the mapping. Lifecycle: create() in one process, open() in the others.
#pragma once

#include <memory>
#include <string>

#include "collective/channel.hpp"

namespace hpcore::collective {

struct GroupHeader {
  std::atomic<uint64_t> magic;
  uint64_t nonce;  // tells this group from another one at the same descriptor number
  uint64_t members;
  uint64_t area_bytes;
  alignas(64) std::atomic<uint64_t> revoked;  // only used by groups without a worker
  MemberIdentity identities[kMaxMembers];
  Doorbell doorbells[kMaxMembers];
};

class SharedGroup : public std::enable_shared_from_this<SharedGroup> {
 public:
  static Result<std::shared_ptr<SharedGroup>> create(int members, size_t area_bytes);
  static Result<std::shared_ptr<SharedGroup>> open(int fd);  // duplicates it
  // Opens what create() in another process published; kNotFound when that process is gone.
  static Result<std::shared_ptr<SharedGroup>> open(const std::string& address);
  ~SharedGroup();
  SharedGroup(const SharedGroup&) = delete;
  SharedGroup& operator=(const SharedGroup&) = delete;

  [[nodiscard]] int fd() const { return fd_; }
  [[nodiscard]] int members() const { return static_cast<int>(header().members); }
  [[nodiscard]] GroupHeader& header() const { return *static_cast<GroupHeader*>(memory_); }
  [[nodiscard]] std::string address() const;  // "pid:fd:nonce"
  void drop_descriptor();                     // when all have opened it
  // With `supervised` somebody revokes the generation of a lost member; else the channel watches
  // its members itself.
  Result<ChannelMemory> channel_memory(bool supervised = false);
  // For groups outside of hpcore run: ends all their generations up to this one.
  [[nodiscard]] std::shared_ptr<Revocation> revocation();
  void revoke(uint64_t generation);

 private:
  SharedGroup(int fd, void* memory, size_t bytes) : fd_(fd), memory_(memory), bytes_(bytes) {}
  static Result<std::shared_ptr<SharedGroup>> map(int fd, size_t bytes);
  Status check_header() const;

  int fd_;
  void* memory_;
  size_t bytes_;
};

}  // namespace hpcore::collective
