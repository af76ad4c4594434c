#include "roster/worker.hpp"

#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <csignal>
#include <cstring>

#include "base/service_thread.hpp"
#include "roster/commit_word.hpp"
#include "roster/life_word.hpp"

namespace hpcore::roster {
namespace {

constexpr auto kHeartbeat = std::chrono::milliseconds(20);
constexpr int kMadvPopulateWrite = 23;  // Linux 5.14; older ones refuse it, which does no harm
constexpr int kCommitYields = 30;       // the ranks come from one collective, nearly together; see
                                        // docs/decisions.md

}  // namespace

Worker::Worker(std::shared_ptr<NodeSegment> segment, int slot, uint64_t incarnation)
    : segment_(std::move(segment)),
      index_(slot),
      incarnation_(incarnation),
      revocation_(std::make_shared<Revocation>(&segment_->header().revoked_generation, segment_)) {}

Result<std::shared_ptr<Worker>> Worker::attach(std::shared_ptr<NodeSegment> segment, int slot,
                                               uint64_t incarnation) {
  if (!segment->has_slot(slot))
    return Status(Code::kNotFound, "there is no slot " + std::to_string(slot));
  Slot& words = segment->slot(slot);
  if (words.incarnation.load() != incarnation || words.life.load() != 0) {
    return Status(Code::kInvalid, "slot " + std::to_string(slot) + " is held for incarnation " +
                                      std::to_string(words.incarnation.load()) + " by pid " +
                                      std::to_string(words.pid.load()) + ", not for incarnation " +
                                      std::to_string(incarnation) +
                                      ": a worker attaches once, to its own slot");
  }
  words.pid.store(getpid());
  std::shared_ptr<Worker> worker(new Worker(std::move(segment), slot, incarnation));
  // The thread keeps the worker alive to the process's end.
  auto sentinel = start_service_thread("hpc-sentinel", [worker] { worker->keep_watch(); });
  if (!sentinel.ok()) return sentinel.status();
  sentinel.value().detach();
  while (words.life.load(std::memory_order_acquire) == 0)
    futex_wait(words.life, 0, Clock::now() + kHeartbeat);
  worker->set_state(WorkerState::kAttached);
  // The first collective of a standby that was promoted should not wait for fresh pages.
  const auto channel = worker->segment_->channel_area(slot);
  (void)madvise(channel.data(), channel.size(), kMadvPopulateWrite);
  return worker;
}

void Worker::end_with_the_agent() const {
  Header& header = segment_->header();
  if (header.agent_pid.load() == getpid()) return;  // tests: both in one process
  futex_wake(header.agent_life, INT_MAX);           // the kernel woke one sentinel only
  kill(getpid(), SIGKILL);
}

void Worker::keep_watch() {
  Slot& words = this->words();
  Header& header = segment_->header();
  words.heartbeat_ns.store(monotonic_ns());
  const LifeHold hold(words.life);
  uint64_t revoked = header.revoked_generation.load(std::memory_order_acquire);
  TimePoint beat = Clock::now();
  for (;;) {
    const uint32_t before = header.board_futex.load(std::memory_order_acquire);
    if (const uint64_t newest = revocation_->newest(); newest > revoked) {
      revoked = newest;
      revocation_->ring_all();
    }
    const uint32_t agent = mark_waiter(header.agent_life);
    if (owner_died(agent)) end_with_the_agent();
    if (const TimePoint now = Clock::now(); now >= beat) {
      words.heartbeat_ns.store(monotonic_ns());
      words.heartbeats.fetch_add(1);
      beat = now + kHeartbeat;
    }
    futex_wait_either(header.board_futex, before, header.agent_life, agent, beat);
  }
}

void Worker::set_state(WorkerState state) {
  words().state.store(static_cast<uint32_t>(state), std::memory_order_release);
  words().state_changes.fetch_add(1);
  segment_->header().agent_doorbell.ring();
}

void Worker::set_flags(uint32_t flags) {
  words().flags.store(flags, std::memory_order_release);
  words().state_changes.fetch_add(1);
  segment_->header().agent_doorbell.ring();
}

void Worker::progress(uint64_t step, uint32_t phase) {
  words().step.store(step, std::memory_order_relaxed);
  words().phase.store(phase, std::memory_order_relaxed);
  words().progress_ns.store(monotonic_ns(), std::memory_order_release);
}

Status Worker::post(const Mail& mail, TimePoint deadline) {
  const std::unique_lock lock(post_mutex_, deadline);
  if (!lock.owns_lock()) return {Code::kTimeout, "another thread of this worker is posting mail"};
  Mailbox& box = words().mailbox;
  const auto taken = [&box] { return box.full.load(std::memory_order_acquire) == 0; };
  if (!words().doorbell.wait(taken, deadline)) {
    return {Code::kTimeout,
            "the agent did not take the mail before this one in time: is it stopped?"};
  }
  const size_t size = std::min(mail.text.size(), kMailBytes);
  box.kind = mail.kind;
  box.step = mail.step;
  box.flags = mail.flags;
  box.posted_ns = monotonic_ns();
  box.size_bytes = static_cast<uint32_t>(size);
  std::memcpy(box.text, mail.text.data() + (mail.text.size() - size), size);
  box.full.store(1, std::memory_order_release);
  segment_->header().agent_doorbell.ring();
  return {};
}

std::optional<Notice> Worker::wait_roster(uint64_t after, TimePoint deadline) const {
  const Header& header = segment_->header();
  for (;;) {
    const uint32_t before = header.board_futex.load(std::memory_order_acquire);
    if (segment_->board_generation() > after) return segment_->notice();
    if (futex_wait(header.board_futex, before, deadline) == WaitResult::kTimeout &&
        segment_->board_generation() <= after) {
      return std::nullopt;
    }
  }
}

bool Worker::ready(uint64_t generation, uint64_t step) {
  if (!advance_commit(words().commit, generation, step)) return false;
  // Only the last one changes anything for the others. Two who are last at the same time both see
  // it: each looks after its own word is written.
  const int slots = segment_->slots();
  for (int index = 0; index < slots; ++index) {
    const CommitWord word = look(segment_->slot(index).commit);
    if (word.generation == generation && word.steps <= step) return true;
  }
  for (int index = 0; index < slots; ++index) {
    if (index != index_) segment_->slot_doorbell(index).ring();
  }
  return true;
}

std::optional<CommitOutcome> Worker::outcome(uint64_t generation, uint64_t step,
                                             const std::vector<int>& slots, bool here) const {
  bool all = true;
  for (const int slot : slots) {
    const CommitWord word = look(segment_->slot(slot).commit);
    if (word.generation != generation) {  // it has moved on, so the generation is closed for good
      const auto committed = segment_->committed_steps(generation);
      if (committed)
        return *committed > step ? CommitOutcome::kCommitted : CommitOutcome::kDiscarded;
      if (word.generation > generation) return CommitOutcome::kDiscarded;  // 256 generations late
      all = false;
    } else if (word.steps <= step) {
      if (word.closed) return CommitOutcome::kDiscarded;
      all = false;
    }
  }
  if (!all) return std::nullopt;
  const CommitWord peers = look(segment_->header().peers);
  if (here || peers.generation == 0 || (peers.generation == generation && peers.steps > step))
    return CommitOutcome::kCommitted;
  const auto committed = segment_->committed_steps(generation);
  if (!committed) return std::nullopt;
  return *committed > step ? CommitOutcome::kCommitted : CommitOutcome::kDiscarded;
}

CommitOutcome Worker::wait_commit(uint64_t generation, uint64_t step, const std::vector<int>& slots,
                                  TimePoint deadline, bool here) const {
  std::optional<CommitOutcome> found;
  const auto known = [&] { return (found = outcome(generation, step, slots, here)).has_value(); };
  for (int i = 0; i < kCommitYields; ++i) {
    if (known()) return *found;
    sched_yield();
  }
  return words().doorbell.wait(known, deadline) ? *found : CommitOutcome::kTimeout;
}

void Worker::finish(int code) {
  set_state(code == 0 ? WorkerState::kFinished : WorkerState::kFailed);
}

}  // namespace hpcore::roster
