// Purpose: the shared memory of one node: header, notice board, rank blobs, store area and one area
// a slot. The agent makes it, workers inherit the descriptor and attach. Threads: thread-safe,
// across processes, except create/attach. Ownership: shared_ptr, because workers, channels and
// stores of a process point into it and end in any order; the last process to go frees the memory
// (memfd). Lifecycle: prepare_slot -> Worker -> release_slot -> prepare_slot ...
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/fd.hpp"
#include "base/mapping.hpp"
#include "roster/layout.hpp"

namespace hpcore::roster {

struct SegmentOptions {
  int slots = 0;
  size_t staging_bytes = 4 << 20;
  size_t store_bytes = 64 << 20;
};

struct SlotInfo {
  int pid;
  uint64_t incarnation;
  WorkerState state;
  uint32_t flags;
  uint64_t version;
  uint64_t commit_generation;
  uint64_t commit_steps;
  bool commit_closed;
  double heartbeat_age_s;  // negative: no heartbeat yet
  uint64_t heartbeats;
  uint64_t step;
  uint32_t phase;
  double progress_age_s;
};

struct Notice {
  uint64_t generation;
  std::string roster;
};

struct TaggedBlob {
  uint64_t tag;
  std::string bytes;
};

class NodeSegment : public std::enable_shared_from_this<NodeSegment> {
 public:
  static Result<std::shared_ptr<NodeSegment>> create(const SegmentOptions& options);
  static Result<std::shared_ptr<NodeSegment>> attach(int fd);  // the descriptor is duplicated

  [[nodiscard]] int fd() const { return fd_.get(); }
  [[nodiscard]] int slots() const { return static_cast<int>(header().slots); }
  [[nodiscard]] Header& header() const { return *reinterpret_cast<Header*>(mapping_.data()); }
  [[nodiscard]] bool has_slot(int slot) const { return slot >= 0 && slot < slots(); }

  // Slots (the index must be valid: has_slot).
  [[nodiscard]] Slot& slot(int index) const;
  Status prepare_slot(int slot, uint64_t incarnation);
  Status release_slot(int slot);
  [[nodiscard]] SlotInfo slot_info(int slot) const;
  Doorbell& slot_doorbell(int index) const { return slot(index).doorbell; }
  std::span<std::byte> control_area(int slot) const;  // zero when the slot was prepared
  std::span<std::byte> staging_area(int slot) const;
  std::span<std::byte> channel_area(int slot) const;  // control_area, then staging_area: contiguous
  std::span<std::byte> exposure_area(int slot) const;
  std::span<std::byte> store_area() const;

  // Generations.
  Status set_ranked(const std::vector<int>& slots);
  [[nodiscard]] std::vector<int> ranked() const;  // slots by rank
  [[nodiscard]] bool is_ranked(int slot) const;
  // Closes whatever is still open of older generations. kInvalid if a slot is in this one already.
  // `peers`: the generation has members on other nodes, whose progress advance_peers tells.
  Status open_commit(const std::vector<int>& slots, uint64_t generation, uint64_t steps,
                     bool peers = false);
  // All other nodes' members are ready for the first `steps` steps; wakes waiters. False if the
  // generation is closed or another.
  bool advance_peers(uint64_t generation, uint64_t steps);
  // C of a closed generation, where it takes other nodes to know it. The first to say it counts.
  void settle(uint64_t generation, uint64_t steps);
  // Closes the words of this generation and writes C into the ledger unless other nodes must settle
  // it; C, or nothing if it is not known or there are no
  // such words. Revokes nothing, wakes nobody.
  std::optional<uint64_t> close_commits(uint64_t generation);
  // Closes and revokes; the words' steps, by rank. Idempotent. C is their minimum.
  std::vector<uint64_t> close_generation(uint64_t generation);
  // C of a closed generation (the last kLedgerEntries are known).
  [[nodiscard]] std::optional<uint64_t> committed_steps(uint64_t generation) const;
  // Closes and revokes the current generation if this slot is ranked and its owner died unfinished.
  void revoke_if_member_died(int slot);
  Status publish(uint64_t generation, const std::string& roster);
  [[nodiscard]] std::optional<Notice> notice() const;
  [[nodiscard]] uint64_t board_generation() const;
  [[nodiscard]] uint64_t revoked_generation() const;
  void ring_all_slots() const;

  // What one rank alone knows; survives the worker. A rank writes from one thread. Ranks that are
  // kMaxSlots apart share their place: those of one node are not.
  Status set_rank_blob(int rank, uint64_t tag, const std::string& bytes);
  [[nodiscard]] std::vector<TaggedBlob> rank_blob(int rank) const;  // newest first

  bool fire_fault(int index);

 private:
  NodeSegment(Fd fd, Mapping mapping) : fd_(std::move(fd)), mapping_(std::move(mapping)) {}
  [[nodiscard]] Board& board(int which) const;
  [[nodiscard]] Blob& blob(int rank, int which) const;
  [[nodiscard]] size_t slot_offset(int slot) const;
  void wake_board() const;
  void write_ledger(uint64_t generation, uint64_t steps);

  Fd fd_;
  Mapping mapping_;
};

}  // namespace hpcore::roster
