#include "collective/channel.hpp"

#include <sched.h>
#include <unistd.h>

#include "base/process_identity.hpp"

namespace hpcore::collective {
namespace {

constexpr int kPidBits = 22;
constexpr int kInsideBits = 19;
constexpr uint64_t kInsideMask = (uint64_t{1} << kInsideBits) - 1;
constexpr size_t kPage = 4096;

uint64_t occupied(uint64_t generation, uint64_t inside) {
  const uint64_t pid = static_cast<uint64_t>(getpid()) & ((uint64_t{1} << kPidBits) - 1);
  return generation << kCountBits | pid << kInsideBits | inside;
}

constexpr size_t round_up(size_t n, size_t unit) { return (n + unit - 1) / unit * unit; }
constexpr size_t round_down(size_t n, size_t unit) { return n / unit * unit; }

int usable_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  return sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;
}

}  // namespace

void pause_core() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

void yield_core() { sched_yield(); }

size_t AreaLayout::least_bytes(int members) {
  return round_up(sizeof(ControlBlock), kPage) + kPage * (static_cast<size_t>(members) + kBuffers);
}

Result<AreaLayout> AreaLayout::of(size_t area_bytes, int members) {
  if (members < 1 || members > kMaxMembers) {
    return Status(Code::kInvalid, "a channel needs 1 to " + std::to_string(kMaxMembers) +
                                      " members on a node, not " + std::to_string(members));
  }
  const size_t control = round_up(sizeof(ControlBlock), kPage);
  const size_t least = least_bytes(members);
  if (area_bytes < least) {
    return Status(Code::kInvalid, "a member's channel area has " + std::to_string(area_bytes) +
                                      " bytes; " + std::to_string(members) + " members need " +
                                      std::to_string(least) + ": raise staging_bytes");
  }
  const size_t rest = area_bytes - control;
  AreaLayout layout;
  layout.rings_at = control;
  layout.ring_bytes =
      std::min<size_t>(size_t{1} << 20, round_down(rest / 4 / static_cast<size_t>(members), kPage));
  if (layout.ring_bytes == 0) layout.ring_bytes = kPage;
  layout.staging_at = control + layout.ring_bytes * static_cast<size_t>(members);
  layout.buffer_bytes = round_down((area_bytes - layout.staging_at) / kBuffers, kPage);
  return layout;
}

ChannelMember AreaLayout::member(std::byte* area, Doorbell* doorbell) const {
  return {reinterpret_cast<ControlBlock*>(area), area + staging_at, area + rings_at, doorbell};
}

Result<std::shared_ptr<Channel>> Channel::create(ChannelMemory memory, int index,
                                                 uint64_t generation,
                                                 std::shared_ptr<Revocation> revocation) {
  const int size = static_cast<int>(memory.members.size());
  if (index < 0 || index >= size) {
    return Status(Code::kInvalid, "rank " + std::to_string(index) + " is not among the " +
                                      std::to_string(size) + " members of the channel");
  }
  if (generation > kMaxGeneration) {
    return Status(Code::kInvalid, "generation " + std::to_string(generation) + " is above " +
                                      std::to_string(kMaxGeneration));
  }
  return std::shared_ptr<Channel>(
      new Channel(std::move(memory), index, generation, std::move(revocation)));
}

Channel::Channel(ChannelMemory memory, int index, uint64_t generation,
                 std::shared_ptr<Revocation> revocation)
    : memory_(std::move(memory)),
      index_(index),
      generation_(generation),
      revocation_(std::move(revocation)) {
  // bench/test_bench_collective.py: a sleep costs about 60 us on a virtual machine, so spin about
  // as long; where ranks outnumber cores the one that is waited for may need this very core.
  roomy_ = usable_cores() >= size();
  spins_ = roomy_ ? 40 : 2;
  yields_ = roomy_ ? 60 : 30;
  revocation_->attach(member(index_).doorbell);
  if (MemberIdentity* own = own_identity()) {
    const ProcessIdentity process = this_process();
    own->start_ticks.store(process.start_ticks, std::memory_order_relaxed);
    own->pid.store(static_cast<uint64_t>(process.pid), std::memory_order_release);
  }
  StampWord& joined = own().joined;
  const uint64_t now = stamp(generation_, 1);
  uint64_t seen = joined.load(std::memory_order_relaxed);
  while (seen < now && !joined.compare_exchange_weak(seen, now, std::memory_order_release)) {
  }
  ring_others();
}

Channel::~Channel() { revocation_->detach(member(index_).doorbell); }

// Of two ranks on one core the later one moves, so that they do not change places.
void Channel::look_around() const {
  const uint32_t core = current_core();
  if (own().core.load(std::memory_order_relaxed) != core) {
    own().core.store(core, std::memory_order_relaxed);
  }
  bool shared = false;
  for (int rank = 0; rank < index_ && !shared; ++rank) {
    shared = control(rank).core.load(std::memory_order_relaxed) == core;
  }
  if (spread_.idle(shared)) return;
  std::vector<uint32_t> taken;
  for (int rank = 0; rank < size(); ++rank) {
    if (rank != index_) taken.push_back(control(rank).core.load(std::memory_order_relaxed));
  }
  spread_.look(shared, core, taken);
}

uint64_t Channel::pid_of(int rank) const {
  const MemberIdentity* identity = member(rank).identity;
  return identity == nullptr ? 0 : identity->pid.load(std::memory_order_acquire);
}

bool Channel::dead(int rank) const {
  const uint64_t pid = pid_of(rank);
  if (pid == 0 || rank == index_) return false;
  const uint64_t ticks = member(rank).identity->start_ticks.load(std::memory_order_relaxed);
  return !process_runs({static_cast<int>(pid), ticks});
}

Status Channel::standing() const {
  if (revoked()) {
    return {Code::kRevoked, "generation " + std::to_string(generation_) +
                                " is over: a rank was lost, joined or left (seen by rank " +
                                std::to_string(index_) + " of " + std::to_string(size()) + ")"};
  }
  if (aborted()) {
    return {Code::kAborted, "the communicator of generation " + std::to_string(generation_) +
                                " was closed or aborted by this process (rank " +
                                std::to_string(index_) + ")"};
  }
  return {};
}

Status Channel::enter(const Limits& limits) {
  HPCORE_RETURN_IF_ERROR(standing());
  std::atomic<uint64_t>& word = own().occupancy;
  const uint64_t empty = occupied(generation_, 0);
  uint64_t seen = word.load(std::memory_order_acquire);
  for (;;) {
    if (generation_of(seen) > generation_) return refused(seen);
    // Same owner: one more operation inside. Otherwise an operation of an older generation may
    // still be inside; if it was another process's, that process is dead.
    const bool same_owner = (seen & ~kInsideMask) == empty;
    const bool same_process =
        ((seen ^ empty) & ((uint64_t{1} << kCountBits) - 1) & ~kInsideMask) == 0;
    if (!same_owner && same_process && (seen & kInsideMask) != 0) {
      Status interrupted;
      const WaitEnd end = wait(
          [&] { return (seen = word.load(std::memory_order_acquire), seen & kInsideMask) == 0; },
          limits, &interrupted);
      if (end == WaitEnd::kInterrupted) return interrupted;
      if (end != WaitEnd::kReady && standing().ok()) {
        return {Code::kTimeout, "an operation of generation " +
                                    std::to_string(generation_of(seen)) +
                                    " is still using this worker's slot; generation " +
                                    std::to_string(generation_) + " cannot begin"};
      }
      HPCORE_RETURN_IF_ERROR(standing());
      continue;
    }
    const uint64_t next = same_owner ? seen + 1 : empty + 1;
    if (word.compare_exchange_weak(seen, next, std::memory_order_acq_rel)) return {};
  }
}

Status Channel::refused(uint64_t occupancy) const {
  return {Code::kRevoked, "generation " + std::to_string(generation_) +
                              " is over: this worker already takes part in generation " +
                              std::to_string(generation_of(occupancy))};
}

void Channel::leave() {
  own().occupancy.fetch_sub(1, std::memory_order_acq_rel);
  ring(index_);
}

void Channel::ring_others() const {
  std::atomic_thread_fence(std::memory_order_seq_cst);
  for (int rank = 0; rank < size(); ++rank) {
    Doorbell& doorbell = *member(rank).doorbell;
    if (rank != index_ && doorbell.sleepers.load(std::memory_order_relaxed) != 0) doorbell.ring();
  }
}

void Channel::abort() {
  aborted_.store(true, std::memory_order_release);
  ring(index_);
}

}  // namespace hpcore::collective
