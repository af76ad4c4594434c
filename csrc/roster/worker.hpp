// Purpose: this process's place in the node segment, and its sentinel thread, which holds the life
// word, writes heartbeats, rings this process's channels when a generation is revoked, and ends the
// process when the agent is dead. Threads: thread-safe; waits block and are cut short by their
// deadline only. Ownership: shared, since channels and backends keep it. Lifecycle: attach() once
// per process, after the fork; the sentinel runs until the process ends (stopping it earlier would
// look like a death).
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "roster/node_segment.hpp"
#include "roster/revocation.hpp"

namespace hpcore::roster {

struct Mail {
  uint32_t kind = 0;
  uint64_t step = 0;
  uint64_t flags = 0;
  std::string text;  // the last kMailBytes of it are kept
};

enum class CommitOutcome { kCommitted, kDiscarded, kTimeout };

class Worker {
 public:
  static Result<std::shared_ptr<Worker>> attach(std::shared_ptr<NodeSegment> segment, int slot,
                                                uint64_t incarnation);
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  [[nodiscard]] const std::shared_ptr<NodeSegment>& segment() const { return segment_; }
  [[nodiscard]] int slot() const { return index_; }
  [[nodiscard]] uint64_t incarnation() const { return incarnation_; }
  [[nodiscard]] Slot& words() const { return segment_->slot(index_); }
  [[nodiscard]] const std::shared_ptr<Revocation>& revocation() const { return revocation_; }

  void set_state(WorkerState state);
  void set_flags(uint32_t flags);
  void progress(uint64_t step, uint32_t phase);
  // Waits until the agent took the mail before; kTimeout when it did not.
  Status post(const Mail& mail, TimePoint deadline);
  // A notice newer than `after`, or nothing at the deadline.
  [[nodiscard]] std::optional<Notice> wait_roster(uint64_t after, TimePoint deadline) const;
  [[nodiscard]] bool revoked(uint64_t generation) const { return revocation_->revoked(generation); }
  bool ready(uint64_t generation, uint64_t step);
  // `slots`: those of this node. `here`: whether they are all ready, never mind other nodes.
  CommitOutcome wait_commit(uint64_t generation, uint64_t step, const std::vector<int>& slots,
                            TimePoint deadline, bool here = false) const;
  void finish(int code);

 private:
  Worker(std::shared_ptr<NodeSegment> segment, int slot, uint64_t incarnation);
  void keep_watch();
  void end_with_the_agent() const;
  [[nodiscard]] std::optional<CommitOutcome> outcome(uint64_t generation, uint64_t step,
                                                     const std::vector<int>& slots,
                                                     bool here) const;

  std::shared_ptr<NodeSegment> segment_;
  int index_;
  uint64_t incarnation_;
  std::shared_ptr<Revocation> revocation_;
  std::timed_mutex post_mutex_;  // one mail at a time
};

}  // namespace hpcore::roster
