// Purpose: RemoteMemory through shared memory, for where the kernel forbids reading another
// process. A reader claims a cell of the source's StagingArea, writes which range it wants, rings;
// the source's StagingServer (one native thread, asleep otherwise) fills the cell; the reader
// copies it out and frees it.
// Every cell's word carries the generation: a reader of an older one meets a foreign word and
// stops; a reader that died leaves its cell taken until the next generation (its death ends this
// one).
// Threads: StagingMemory is thread-safe; StagingServer's start/stop are one thread.
// Ownership: the area is shared memory that outlives both; the server reads its process's regions,
// so it must be stopped before they are freed.
#pragma once

#include <atomic>
#include <memory>
#include <thread>

#include "base/doorbell.hpp"
#include "transport/remote_memory.hpp"

namespace hpcore::transport {

constexpr size_t kStagingCells = 4;
constexpr size_t kStagingCellBytes = 124 << 10;

struct StagingCell {
  std::atomic<uint64_t> word{0};  // generation << 8 | CellState
  uint64_t offset = 0;
  uint64_t bytes = 0;
};

struct StagingArea {
  Doorbell request;  // rung by readers and by revocation; the server sleeps here
  Doorbell reply;    // rung by the server and by readers that free a cell
  StagingCell cells[kStagingCells];
  alignas(4096) unsigned char data[kStagingCells][kStagingCellBytes];

  void reset(uint64_t generation);  // by the source, before anybody learns of the generation
};
static_assert(sizeof(StagingArea) <= 512 << 10);

class StagingServer {
 public:
  StagingServer(StagingArea* area, const RegionMap* regions, uint64_t generation,
                StopCondition stop);
  ~StagingServer();
  StagingServer(const StagingServer&) = delete;
  StagingServer& operator=(const StagingServer&) = delete;
  [[nodiscard]] Status start();
  void stop();  // twice is fine; returns when the thread has ended

 private:
  void run();
  bool serve_one();

  StagingArea* area_;
  const RegionMap* regions_;
  uint64_t generation_;
  StopCondition stop_;
  std::atomic<bool> stopped_{false};
  std::thread thread_;
};

class StagingMemory final : public RemoteMemory {
 public:
  explicit StagingMemory(const RemoteProcess& process) : process_(process) {}
  [[nodiscard]] Status read(uint64_t offset, uint64_t bytes, const RegionMap& into,
                            const StopCondition& stop) override;
  [[nodiscard]] std::string method() const override { return "staging"; }

 private:
  [[nodiscard]] Result<size_t> claim(TimePoint deadline, const StopCondition& stop);
  [[nodiscard]] Status read_piece(uint64_t offset, uint64_t bytes, const RegionMap& into,
                                  const StopCondition& stop);
  RemoteProcess process_;
};

}  // namespace hpcore::transport
