// Purpose: the agent's eyes. One thread a watched slot sleeps on the life word; one more waits for
// mail and states. A death in the current roster closes its commit words and revokes its generation
// here, before any Python runs. Threads: thread-safe. Bounds: with kMaxQueued events queued, mail
// stays in its box (its sender waits) and states are left to be looked at later; a death, one a
// worker, with that worker's last mail, is always queued. A state event tells the state at that
// moment: of two changes in quick succession only the second may be seen. Ownership: owns its
// threads; close() ends them and is safe to call twice. In a forked child, which has none of the
// threads, nothing is closed or freed.
#pragma once

#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <thread>

#include "base/fd.hpp"
#include "roster/worker.hpp"

namespace hpcore::roster {

struct Event {
  enum class Kind { kDeath, kMail, kState };
  Kind kind;
  int slot;
  uint64_t incarnation;
  uint64_t at_ns;                           // CLOCK_MONOTONIC when it was seen
  Mail mail;                                // kMail
  WorkerState state = WorkerState::kEmpty;  // kState, kDeath: the last one
};

class AgentWatch {
 public:
  static constexpr size_t kMaxQueued = 1024;

  // The deleter leaks in a forked child.
  static Result<std::shared_ptr<AgentWatch>> start(std::shared_ptr<NodeSegment> segment);
  ~AgentWatch() { close(); }

  Status watch(int slot, uint64_t incarnation);
  void unwatch(int slot);
  std::optional<Event> next_event(TimePoint deadline);
  [[nodiscard]] int fileno() const { return event_fd_.get(); }
  void close();

 private:
  struct Watched {
    uint64_t incarnation;
    uint32_t state_changes = 0;
    std::atomic<bool> stop{false};
    std::atomic<bool> ended{false};
    std::thread thread;
  };
  explicit AgentWatch(std::shared_ptr<NodeSegment> segment, Fd event_fd);
  void watch_life(int slot, Watched& watched);
  void watch_post();
  [[nodiscard]] bool something_new(int slot, const Watched& watched) const;
  void collect(int slot, Watched& watched);  // with mutex_ held
  void push(Event event);                    // with mutex_ held

  std::shared_ptr<NodeSegment> segment_;
  Fd event_fd_;
  const pid_t owner_;
  std::mutex mutex_;  // watched_ and events_
  std::condition_variable arrived_;
  std::map<int, std::unique_ptr<Watched>> watched_;
  std::deque<Event> events_;
  std::atomic<bool> closed_{false};
  std::thread post_thread_;
};

}  // namespace hpcore::roster
