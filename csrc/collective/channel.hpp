// Purpose: one generation's view of the memory through which the members of a group on one node
// exchange data: each member's control block, staging, rings and doorbell, this process's index
// among them, and how a wait ends early. It does not know where the memory comes from: see
// world_channel.hpp and rendezvous.hpp.
// Threads: thread-safe. Ownership: shared by the Communicator and the PointToPoint that use it;
// keeps the memory alive. Lifecycle: create(), then any number of enter()/leave(); abort() ends all
// waits for good.
//
// Leftovers of older generations. A generation's words compare greater than all older ones, so
// nothing is cleared. Each member writes only its own areas. Who may write them is guarded by
// `occupancy`: an operation of this process that still runs for an older generation is waited for,
// and one that comes late is refused. An older *process* of the slot must be dead and reaped before
// the slot is given away (the agent does that); until then its late writes go where nobody reads.
// Readers of an older generation may see newer bytes: they find their generation revoked when they
// end, and return kRevoked. Therefore a generation must be revoked before a newer one uses its
// slots.
#pragma once

#include <memory>
#include <vector>

#include "collective/control_block.hpp"
#include "collective/core_spread.hpp"
#include "collective/limits.hpp"
#include "roster/revocation.hpp"

namespace hpcore::collective {

// Which process a member is, in shared memory; written by that process when it makes its channel.
struct MemberIdentity {
  std::atomic<uint64_t> pid;  // 0: it has not come yet; written last
  std::atomic<uint64_t> start_ticks;
};

struct ChannelMember {
  ControlBlock* control = nullptr;
  std::byte* staging = nullptr;
  std::byte* rings = nullptr;  // ring i: to member i
  Doorbell* doorbell = nullptr;
  MemberIdentity* identity = nullptr;  // null: somebody else watches for deaths, and revokes
};

struct ChannelMemory {
  std::vector<ChannelMember> members;  // by rank
  size_t buffer_bytes = 0;             // staging has kBuffers of them
  size_t ring_bytes = 0;               // of one ordered pair
  std::shared_ptr<void> keep_alive;
};

// How `area_bytes` of one member are divided for a group of `members`.
struct AreaLayout {
  size_t rings_at = 0;
  size_t ring_bytes = 0;
  size_t staging_at = 0;
  size_t buffer_bytes = 0;

  static size_t least_bytes(int members);
  // kInvalid when the area is too small.
  static Result<AreaLayout> of(size_t area_bytes, int members);
  [[nodiscard]] ChannelMember member(std::byte* area, Doorbell* doorbell) const;
};

enum class WaitEnd { kReady, kRevoked, kAborted, kTimeout, kInterrupted };

class Channel {
 public:
  static Result<std::shared_ptr<Channel>> create(ChannelMemory memory, int index,
                                                 uint64_t generation,
                                                 std::shared_ptr<Revocation> revocation);
  ~Channel();
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;

  [[nodiscard]] int index() const { return index_; }
  [[nodiscard]] int size() const { return static_cast<int>(memory_.members.size()); }
  [[nodiscard]] uint64_t generation() const { return generation_; }
  [[nodiscard]] size_t buffer_bytes() const { return memory_.buffer_bytes; }
  [[nodiscard]] size_t ring_bytes() const { return memory_.ring_bytes; }
  [[nodiscard]] const ChannelMember& member(int rank) const {
    return memory_.members[static_cast<size_t>(rank)];
  }
  [[nodiscard]] ControlBlock& control(int rank) const { return *member(rank).control; }
  [[nodiscard]] ControlBlock& own() const { return control(index_); }
  [[nodiscard]] bool revoked() const { return revocation_->revoked(generation_); }
  // Whether this channel must itself find out that members have died.
  [[nodiscard]] bool watches_members() const { return own_identity() != nullptr; }
  // Whether the member came and its process has ended since; reads /proc.
  [[nodiscard]] bool dead(int rank) const;
  [[nodiscard]] uint64_t pid_of(int rank) const;
  [[nodiscard]] bool aborted() const { return aborted_.load(std::memory_order_acquire); }

  // An operation may write this member's areas between enter() and leave().
  Status enter(const Limits& limits);
  void leave();

  void ring(int rank) const { member(rank).doorbell->ring(); }
  void ring_others() const;
  void abort();  // all waits of this process on this channel end with kAborted, now and later

  // Spins a little, yields a little, then sleeps on this member's doorbell until reached().
  template <typename Reached>
  WaitEnd wait(Reached reached, const Limits& limits, Status* interrupted) const;
  // That member's process has opened the memory for this generation: it needs nobody else for that.
  [[nodiscard]] bool joined(int rank) const {
    const uint64_t seen = control(rank).joined.load(std::memory_order_acquire);
    return generation_of(seen) == generation_;
  }
  // kRevoked, kAborted or kOk as things are now.
  [[nodiscard]] Status standing() const;

 private:
  Channel(ChannelMemory memory, int index, uint64_t generation,
          std::shared_ptr<Revocation> revocation);
  Status refused(uint64_t occupancy) const;
  [[nodiscard]] MemberIdentity* own_identity() const { return member(index_).identity; }

  ChannelMemory memory_;
  int index_;
  uint64_t generation_;
  std::shared_ptr<Revocation> revocation_;
  std::atomic<bool> aborted_{false};
  void look_around() const;

  bool roomy_;  // a core for each member
  mutable CoreSpread spread_;
  int spins_;   // looks with a pause in between, after which the core is offered to others
  int yields_;  // how many such turns before sleeping
};

// Holds a Channel's occupancy for a scope, if enter() was ok.
class Occupancy {
 public:
  Occupancy(Channel& channel, const Limits& limits)
      : channel_(channel), status_(channel.enter(limits)) {}
  ~Occupancy() {
    if (status_.ok()) channel_.leave();
  }
  Occupancy(const Occupancy&) = delete;
  Occupancy& operator=(const Occupancy&) = delete;
  [[nodiscard]] const Status& status() const { return status_; }

 private:
  Channel& channel_;
  Status status_;
};

void pause_core();
void yield_core();

template <typename Reached>
WaitEnd Channel::wait(Reached reached, const Limits& limits, Status* interrupted) const {
  constexpr auto kSlice = std::chrono::milliseconds(50);
  for (int turn = 0; turn < yields_; ++turn) {
    for (int i = 0; i < spins_; ++i) {
      if (reached()) return WaitEnd::kReady;
      pause_core();
    }
    if (revoked() || aborted()) break;
    if (turn == 1 && roomy_) look_around();
    yield_core();
  }
  for (;;) {
    const TimePoint slice =
        limits.poll ? std::min(limits.deadline, Clock::now() + kSlice) : limits.deadline;
    bool ready = false;
    member(index_).doorbell->wait([&] { return (ready = reached()) || revoked() || aborted(); },
                                  slice);
    if (ready) return WaitEnd::kReady;
    if (revoked()) return WaitEnd::kRevoked;
    if (aborted()) return WaitEnd::kAborted;
    if (Clock::now() >= limits.deadline) return WaitEnd::kTimeout;
    if (limits.poll) {
      *interrupted = (*limits.poll)();
      if (!interrupted->ok()) return WaitEnd::kInterrupted;
    }
  }
}

}  // namespace hpcore::collective
