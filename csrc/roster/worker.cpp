#include "roster/worker.hpp"

#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstring>

#include "base/scheduling.hpp"
#include "roster/commit_word.hpp"
#include "roster/life_word.hpp"

namespace hpcore::roster {
namespace {

constexpr auto kHeartbeat = std::chrono::milliseconds(20);
constexpr int kCommitSpins = 200;  // some microseconds: bench/test_bench_roster.py

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
  // The thread takes no signal and keeps the worker alive to the process's end.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  std::thread([worker] { worker->keep_watch(); }).detach();
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  while (words.life.load(std::memory_order_acquire) == 0)
    futex_wait(words.life, 0, Clock::now() + kHeartbeat);
  worker->set_state(WorkerState::kAttached);
  return worker;
}

void Worker::keep_watch() {
  Slot& words = this->words();
  const Header& header = segment_->header();
  prefer_short_slice();
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
    if (owner_died(header.agent_life.load(std::memory_order_acquire))) kill(getpid(), SIGKILL);
    if (const TimePoint now = Clock::now(); now >= beat) {
      words.heartbeat_ns.store(monotonic_ns());
      words.heartbeats.fetch_add(1);
      beat = now + kHeartbeat;
    }
    futex_wait(header.board_futex, before, beat);
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
  segment_->ring_ranked();
  return true;
}

std::optional<CommitOutcome> Worker::outcome(uint64_t generation, uint64_t step,
                                             const std::vector<int>& slots) const {
  const Header& header = segment_->header();
  if (header.opened_generation.load(std::memory_order_acquire) > generation) {
    return header.opened_steps.load() > step ? CommitOutcome::kCommitted
                                             : CommitOutcome::kDiscarded;
  }
  bool all = true;
  for (const int slot : slots) {
    const CommitWord word =
        CommitWord::unpack(segment_->slot(slot).commit.load(std::memory_order_acquire));
    if (word.generation == generation && word.steps > step) continue;
    all = false;  // a word of another generation: its slot was recycled; the next opening will say
    if (word.generation == generation && word.closed) return CommitOutcome::kDiscarded;
  }
  if (all) return CommitOutcome::kCommitted;
  return std::nullopt;
}

CommitOutcome Worker::wait_commit(uint64_t generation, uint64_t step, const std::vector<int>& slots,
                                  TimePoint deadline) const {
  std::optional<CommitOutcome> found;
  const auto known = [&] { return (found = outcome(generation, step, slots)).has_value(); };
  return words().doorbell.wait(known, deadline, kCommitSpins) ? *found : CommitOutcome::kTimeout;
}

void Worker::finish(int code) {
  set_state(code == 0 ? WorkerState::kFinished : WorkerState::kFailed);
}

}  // namespace hpcore::roster
