#include "roster/agent_watch.hpp"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>

#include "base/service_thread.hpp"
#include "roster/life_word.hpp"

namespace hpcore::roster {
namespace {

constexpr auto kLookAgain = std::chrono::seconds(1);  // a wake-up that got lost costs at most this

}  // namespace

AgentWatch::AgentWatch(std::shared_ptr<NodeSegment> segment, Fd event_fd)
    : segment_(std::move(segment)), event_fd_(std::move(event_fd)), owner_(getpid()) {}

Result<std::shared_ptr<AgentWatch>> AgentWatch::start(std::shared_ptr<NodeSegment> segment) {
  Fd fd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK | EFD_SEMAPHORE));
  if (!fd.valid()) return Status::system("eventfd", errno);
  const std::shared_ptr<AgentWatch> watch(new AgentWatch(std::move(segment), std::move(fd)),
                                          [](AgentWatch* self) {
                                            if (self->owner_ == getpid()) delete self;
                                          });
  auto thread = start_service_thread("hpc-post", [self = watch.get()] { self->watch_post(); });
  if (!thread.ok()) return thread.status();
  watch->post_thread_ = std::move(thread.value());
  return watch;
}

Status AgentWatch::watch(int slot, uint64_t incarnation) {
  if (!segment_->has_slot(slot))
    return {Code::kNotFound, "there is no slot " + std::to_string(slot)};
  unwatch(slot);
  auto watched = std::make_unique<Watched>();
  watched->incarnation = incarnation;
  Watched* entry = watched.get();
  auto thread = start_service_thread("hpc-watch", [this, slot, entry] {
    watch_life(slot, *entry);
    entry->ended = true;
  });
  if (!thread.ok()) return thread.status();
  entry->thread = std::move(thread.value());
  const std::lock_guard lock(mutex_);
  watched_[slot] = std::move(watched);
  return {};
}

void AgentWatch::unwatch(int slot) {
  std::unique_ptr<Watched> watched;
  {
    const std::lock_guard lock(mutex_);
    const auto at = watched_.find(slot);
    if (at == watched_.end()) return;
    watched = std::move(at->second);
    watched_.erase(at);
  }
  watched->stop = true;
  while (!watched->ended) {  // it may have looked at `stop` just before, and sleep only now
    futex_wake(segment_->slot(slot).life, INT_MAX);
    std::this_thread::sleep_for(std::chrono::microseconds(100));
  }
  watched->thread.join();
}

void AgentWatch::watch_life(int index, Watched& watched) {
  Slot& slot = segment_->slot(index);
  while (!wait_for_death(slot.life, Clock::now() + kLookAgain))
    if (watched.stop) return;
  if (slot.incarnation.load() != watched.incarnation) return;
  const uint64_t now = monotonic_ns();
  segment_->revoke_if_member_died(index);
  const auto state = static_cast<WorkerState>(slot.state.load());
  const std::lock_guard lock(mutex_);
  collect(index, watched);  // its last mail comes before its death
  push({Event::Kind::kDeath, index, watched.incarnation, now, {}, state});
}

void AgentWatch::watch_post() {
  Header& header = segment_->header();
  const LifeHold hold(header.agent_life);
  const auto something = [this] {
    const std::lock_guard lock(mutex_);
    if (closed_) return true;
    if (events_.size() >= kMaxQueued) return false;  // next_event rings when there is room
    return std::any_of(watched_.begin(), watched_.end(), [this](const auto& entry) {
      return something_new(entry.first, *entry.second);
    });
  };
  while (!closed_) {
    header.agent_doorbell.wait(something, Clock::now() + kLookAgain);
    const std::lock_guard lock(mutex_);
    for (const auto& [slot, watched] : watched_)
      if (events_.size() < kMaxQueued) collect(slot, *watched);
  }
  header.agent_life.store(0);  // a closed watch is no dead agent
}

bool AgentWatch::something_new(int slot, const Watched& watched) const {
  const Slot& words = segment_->slot(slot);
  return words.incarnation.load() == watched.incarnation &&
         (words.mailbox.full.load(std::memory_order_acquire) == 1 ||
          words.state_changes.load() != watched.state_changes);
}

void AgentWatch::collect(int index, Watched& watched) {
  Slot& slot = segment_->slot(index);
  if (slot.incarnation.load() != watched.incarnation) return;
  const uint64_t now = monotonic_ns();
  if (const uint32_t changes = slot.state_changes.load(); changes != watched.state_changes) {
    watched.state_changes = changes;
    push({Event::Kind::kState,
          index,
          watched.incarnation,
          now,
          {},
          static_cast<WorkerState>(slot.state.load())});
  }
  Mailbox& box = slot.mailbox;
  if (box.full.load(std::memory_order_acquire) != 1) return;
  const size_t size = std::min<size_t>(box.size_bytes, kMailBytes);
  push({Event::Kind::kMail,
        index,
        watched.incarnation,
        now,
        {box.kind, box.step, box.flags, std::string(box.text, size)},
        static_cast<WorkerState>(slot.state.load())});
  box.full.store(0, std::memory_order_release);
  slot.doorbell.ring();
}

void AgentWatch::push(Event event) {
  events_.push_back(std::move(event));
  eventfd_write(event_fd_.get(), 1);
  arrived_.notify_one();
}

std::optional<Event> AgentWatch::next_event(TimePoint deadline) {
  std::unique_lock lock(mutex_);
  if (!arrived_.wait_until(lock, deadline, [this] { return !events_.empty(); }))
    return std::nullopt;
  Event event = std::move(events_.front());
  events_.pop_front();
  if (events_.size() == kMaxQueued - 1) segment_->header().agent_doorbell.ring();
  eventfd_t one = 0;
  eventfd_read(event_fd_.get(), &one);
  return event;
}

void AgentWatch::close() {
  if (owner_ != getpid() || closed_.exchange(true)) return;
  std::vector<int> slots;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& entry : watched_) slots.push_back(entry.first);
  }
  for (const int slot : slots) unwatch(slot);
  segment_->header().agent_doorbell.ring();
  if (post_thread_.joinable()) post_thread_.join();
}

}  // namespace hpcore::roster
