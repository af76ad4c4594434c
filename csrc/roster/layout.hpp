// Purpose: how a node segment lies in memory. Everything is zero at first, so the memfd stays
// sparse until used. Threads: words shared by processes are std::atomic; who writes a word is said
// beside it. Ownership: views of mapped memory. Change kLayoutVersion with any change here: agent
// and workers of one job must agree.
#pragma once

#include "base/doorbell.hpp"

namespace hpcore::roster {

constexpr uint64_t kMagic = 0x31304745'53435048;  // "HPCSEG01"
constexpr uint32_t kLayoutVersion = 3;
constexpr int kMaxSlots = 64;
constexpr size_t kPage = 4096;
constexpr size_t kBoardBytes = 256 << 10;
constexpr size_t kMailBytes = 16 << 10;
constexpr size_t kBlobBytes = 64 << 10;
constexpr size_t kControlBytes = 64 << 10;
constexpr size_t kExposureBytes = 1 << 20;
constexpr size_t kLedgerEntries = 256;

enum class WorkerState : uint32_t {
  kEmpty,
  kStarting,
  kAttached,
  kWarm,
  kTraining,
  kFinished,
  kFailed
};
constexpr uint32_t kFlagRecoverable = 1;

// `version` of a slot: number of steps whose boundary state the worker holds whole, or one of
// these.
constexpr uint64_t kVersionNone = ~0ULL;
constexpr uint64_t kVersionTorn = ~0ULL - 1;
constexpr uint64_t kVersionApplying = ~0ULL - 2;

// One of the two buffers of the notice board; `generation` is 0 while it is being written.
struct alignas(64) Board {
  std::atomic<uint64_t> generation;
  std::atomic<uint64_t> size_bytes;
  std::byte bytes[kBoardBytes];
};

struct alignas(64) Blob {  // `sequence` is 0 while it is being written; see rank_blobs.cpp
  std::atomic<uint64_t> sequence;
  std::atomic<uint64_t> rank;
  std::atomic<uint64_t> tag;
  std::atomic<uint64_t> size_bytes;
  std::atomic<uint64_t> checksum;
  std::byte bytes[kBlobBytes];
};

struct Header {
  std::atomic<uint64_t> magic;
  uint32_t layout_version;
  uint32_t slots;
  uint64_t staging_bytes;
  uint64_t store_bytes;
  std::atomic<int32_t> agent_pid;
  alignas(64) std::atomic<uint32_t> agent_life;  // robust futex of the agent, 0 until it watches
  alignas(64) Doorbell agent_doorbell;           // mail and states
  alignas(64) std::atomic<uint64_t> board_generation;
  std::atomic<uint64_t> revoked_generation;
  std::atomic<uint32_t> board_futex;              // moves with each of the two words above
  alignas(64) std::atomic<uint64_t> ranked_mask;  // slots that the current roster names
  std::atomic<uint8_t> ranked_order[kMaxSlots];   // slot of each rank
  std::atomic<uint32_t> ranked_count;
  // What all other nodes have said ready for, as far as it is known here: a commit word. Steps are
  // kStepsMask in a generation that has no other nodes.
  alignas(64) std::atomic<uint64_t> peers;
  alignas(64) std::atomic<uint64_t> fault_mask;
  // How the last generations ended: entry g % kLedgerEntries is the closed commit word (g, C).
  alignas(64) std::atomic<uint64_t> ledger[kLedgerEntries];
};

struct Mailbox {  // written by the worker while full == 0, taken by the agent while full == 1
  std::atomic<uint32_t> full;
  uint32_t kind;
  uint64_t step;
  uint64_t flags;
  uint64_t posted_ns;
  uint32_t size_bytes;
  char text[kMailBytes];
};

struct Slot {
  alignas(64) std::atomic<uint32_t> life;  // robust futex of the sentinel thread
  std::atomic<int32_t> pid;
  std::atomic<uint64_t> incarnation;
  std::atomic<uint32_t> state;
  std::atomic<uint32_t> flags;
  std::atomic<uint32_t> state_changes;  // the agent tells changes apart by it
  alignas(64) std::atomic<uint64_t> heartbeats;
  std::atomic<uint64_t> heartbeat_ns;
  alignas(64) std::atomic<uint64_t> step;
  std::atomic<uint32_t> phase;
  std::atomic<uint64_t> progress_ns;
  alignas(64) std::atomic<uint64_t> commit;  // commit_word.hpp
  std::atomic<uint64_t> version;
  alignas(64) Doorbell doorbell;
  alignas(64) Mailbox mailbox;
};

}  // namespace hpcore::roster
