// Purpose: the chunks of one pull that are left, by the source that is planned for them, and who
// takes the next one from whom. Each reading thread asks for a task; it gets one of the source that
// fewest others read from, of that source's own part while it lasts, then of the part that would
// end last. So sources that are faster than planned help the others, and the chunks of a source
// that is out or lags are spread over the rest.
// A source lags when the best of its last chunks came at under a quarter of the best rate of all:
// the best one, since a thread that was descheduled spoils single measurements; and under 2000
// chunks a second, since what is quicker is not worth moving. It is asked once more after 64, 128,
// 256 ... chunks. Threads: thread-safe. Ownership: none; lives for one pull.
#pragma once

#include <array>
#include <mutex>
#include <vector>

#include "base/futex.hpp"

namespace hpcore::state {

struct ChunkRange {
  uint64_t begin = 0;
  uint64_t end = 0;
};

class WorkShare {
 public:
  struct Task {
    uint64_t chunk = 0;
    size_t source = 0;
  };
  enum class Answer { kTask, kNothingLeft, kNoSource };

  // planned: by source, disjoint ranges that cover all chunks. Sources are out until they are in.
  // lag_factor: over links, where bursts make single chunks many times quicker than the rest, 8
  // (see docs/decisions.md).
  WorkShare(uint64_t chunks, std::vector<std::vector<ChunkRange>> planned, double lag_factor = 4);
  void in(size_t source);
  [[nodiscard]] Answer take(Task* task);
  void finished(const Task& task, double seconds);
  void failed(const Task& task);                    // the source is out, the chunk goes to another
  void too_slow(const Task& task, double seconds);  // the chunk goes to another
  void out(size_t source);
  [[nodiscard]] bool usable(size_t source) const;
  [[nodiscard]] bool lagging(size_t source) const;
  // How long one chunk of this source may take before another should be asked; none: for ever.
  [[nodiscard]] Clock::duration patience(size_t source) const;
  [[nodiscard]] uint64_t moved() const;  // chunks taken from another source than planned

 private:
  static constexpr size_t kWindow = 4;
  struct Source {
    bool usable = false;
    unsigned active = 0;
    std::vector<ChunkRange> own;
    uint64_t left = 0;                    // chunks in `own`
    std::array<double, kWindow> rates{};  // chunks per second, the last ones
    size_t measured = 0;
    uint64_t probe_at = 0;
    uint64_t probe_step = 64;
  };

  [[nodiscard]] double best_rate(const Source& source) const;
  [[nodiscard]] double best_rate_of_all() const;
  [[nodiscard]] bool slow(const Source& source) const;
  [[nodiscard]] bool lags(const Source& source) const;
  void measure(Source& source, double seconds);
  [[nodiscard]] size_t choose() const;  // sources_.size(): none
  uint64_t take_own(Source& source);
  uint64_t steal(size_t thief);
  [[nodiscard]] uint64_t publisher(uint64_t chunk) const;

  const uint64_t chunks_;
  const double lag_factor_;
  mutable std::mutex mutex_;  // guards all below
  std::vector<Source> sources_;
  std::vector<Task> loose_;  // given back, with the source that is not to get it again
  uint64_t left_ = 0;        // chunks that are in nobody's hands
  uint64_t done_ = 0;
  uint64_t moved_ = 0;
};

}  // namespace hpcore::state
