#include "transport/device_lane.hpp"

#include <algorithm>
#include <thread>

namespace hpcore::transport {
namespace {

using Kind = CudaBuffer::Kind;

constexpr int kYields = 100;  // then sleep: a piece takes 0.1 ms and more
constexpr auto kNap = std::chrono::microseconds(30);
// What is in flight when a read is stopped: so long it is waited for before the lane is given up.
constexpr auto kGrace = std::chrono::milliseconds(250);
constexpr double kDrainLimit_s = 10;  // after a cancel: an aborted kernel ends within milliseconds

class Pauses {
 public:
  void pause() {
    if (count_++ < kYields) {
      std::this_thread::yield();
    } else {
      std::this_thread::sleep_for(kNap);
    }
  }

 private:
  int count_ = 0;
};

Clock::duration seconds(double count) {
  return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(count));
}

}  // namespace

Result<std::unique_ptr<DeviceLane>> DeviceLane::open(std::shared_ptr<CudaDevice> device,
                                                     const LaneOptions& options, Ways ways) {
  if (options.piece_bytes == 0 || options.slots == 0) {
    return Status(Code::kInvalid, "a lane needs at least one slot of one byte");
  }
  std::unique_ptr<DeviceLane> lane(new DeviceLane(std::move(device), options, std::move(ways)));
  if (Status status = lane->start_slots(); !status.ok()) return status;
  return lane;
}

Status DeviceLane::start_slots() {
  Result<CudaStream> stream = CudaStream::create(device_);
  if (!stream.ok()) return stream.status();
  stream_ = std::move(stream.value());
  for (unsigned i = 0; i < options_.slots; ++i) {
    Result<CudaEvent> event = CudaEvent::create(device_);
    if (!event.ok()) return event.status();
    slots_.push_back(std::make_unique<Slot>());
    slots_.back()->done = std::move(event.value());
  }
  return {};
}

// Whatever still runs (an aborted kernel that does not end) must not find its memory gone.
DeviceLane::~DeviceLane() {
  if (stream_.get() == nullptr || stream_.drain(kDrainLimit_s).ok()) return;
  stream_.abandon();
  for (auto& slot : slots_) {
    slot->scratch.abandon();
    slot->bounce.abandon();
  }
}

Status DeviceLane::broken() {
  const std::scoped_lock lock(mutex_);
  return failure_;
}

void DeviceLane::fail(const Status& why) {
  {
    const std::scoped_lock lock(mutex_);
    if (!failure_.ok()) return;
    failure_ = why;
  }
  freed_.notify_all();
  if (ways_.cancel) ways_.cancel();
}

std::vector<DeviceLane::Slot*> DeviceLane::take_slots(uint64_t bytes) {
  std::vector<Slot*> taken;
  const std::scoped_lock lock(mutex_);
  for (auto& slot : slots_) {
    if (taken.size() * options_.piece_bytes >= bytes) break;
    if (slot->busy) continue;
    slot->busy = true;
    taken.push_back(slot.get());
  }
  return taken;
}

void DeviceLane::give_back(Slot* slot) {
  {
    const std::scoped_lock lock(mutex_);
    slot->busy = false;
  }
  freed_.notify_all();
}

Status DeviceLane::ensure(CudaBuffer* buffer, Kind kind) const {
  if (buffer->address() != 0) return {};
  Result<CudaBuffer> made = CudaBuffer::create(device_, kind, options_.piece_bytes);
  if (!made.ok()) return made.status();
  *buffer = std::move(made.value());
  return {};
}

Status DeviceLane::copy(const std::vector<iovec>& to, const std::vector<iovec>& from) const {
  return copy_ranges(*device_, to, from, stream_.get());
}

Status DeviceLane::enqueue(uint64_t offset, uint64_t bytes, const std::vector<Slot*>& slots,
                           Run* run) {
  if (run->digester != nullptr) {
    for (Slot* slot : slots) HPCORE_RETURN_IF_ERROR(ensure(&slot->bounce, Kind::kPinned));
  }
  if (run->into != nullptr) {
    HPCORE_RETURN_IF_ERROR(ways_.fetch(slots, offset, bytes, *run->into));
  }
  for (size_t i = 0; i < slots.size(); ++i) {
    const uint64_t at = offset + i * options_.piece_bytes;
    const uint64_t length = std::min(options_.piece_bytes, offset + bytes - at);
    if (run->into == nullptr) {
      // A range that has only its last bytes in memory: the bounce buffer.
      const RegionMap window({{0, at}, {slots[i]->bounce.address(), length}});
      HPCORE_RETURN_IF_ERROR(ways_.fetch({&slots[i], 1}, at, length, window));
    } else if (run->digester != nullptr) {
      std::vector<iovec> pieces;
      run->into->pieces(at, length, &pieces);
      const std::vector<iovec> bounce{
          {reinterpret_cast<void*>(slots[i]->bounce.address()), length}};
      HPCORE_RETURN_IF_ERROR(copy(bounce, pieces));
    }
    HPCORE_RETURN_IF_ERROR(slots[i]->done.record(stream_.get()));
    run->flights.push_back({slots[i], at, length});
  }
  return {};
}

Status DeviceLane::issue(uint64_t offset, uint64_t bytes, const std::vector<Slot*>& slots,
                         Run* run) {
  const std::scoped_lock lock(issuing_);
  Status status = broken();
  const size_t before = run->flights.size();
  if (status.ok()) status = enqueue(offset, bytes, slots, run);
  if (status.ok()) return {};
  run->flights.resize(before);
  fail(status);  // half a batch may be under way
  (void)stream_.drain(kDrainLimit_s);
  for (Slot* slot : slots) give_back(slot);
  return status;
}

Status DeviceLane::await(Slot* slot, const StopCondition& stop) {
  const TimePoint late = Clock::now() + seconds(options_.answer_limit_s);
  for (Pauses pauses;; pauses.pause()) {
    const Result<bool> done = slot->done.done();
    if (!done.ok()) return done.status();
    if (done.value()) return {};
    HPCORE_RETURN_IF_ERROR(broken());
    if (ways_.check) HPCORE_RETURN_IF_ERROR(ways_.check());
    if (stop()) return {Code::kAborted, "reading state was stopped"};
    if (Clock::now() >= late) {
      return {Code::kTimeout,
              "nothing of the state came within " + std::to_string(options_.answer_limit_s) + " s"};
    }
  }
}

// Waits for the oldest piece in flight, digests and announces it.
Status DeviceLane::land(Run* run) {
  const Flight& flight = run->flights[run->landed];
  HPCORE_RETURN_IF_ERROR(await(flight.slot, run->stop));
  if (run->digester != nullptr) {
    run->digester->update(reinterpret_cast<const void*>(flight.slot->bounce.address()),
                          flight.bytes);
  }
  ++run->landed;
  give_back(flight.slot);
  if (run->arrival) run->arrival(flight.offset, flight.bytes);
  return {};
}

// After a failure: nothing of this run may be under way when it returns.
Status DeviceLane::settle(Run* run, Status status) {
  if (status.code() == Code::kAborted && broken().ok()) {
    const TimePoint until = Clock::now() + kGrace;
    const StopCondition late = [until] { return Clock::now() >= until; };
    size_t ended = run->landed;
    while (ended < run->flights.size() && await(run->flights[ended].slot, late).ok()) ++ended;
    if (ended < run->flights.size())
      fail({Code::kTimeout,
            "a read was stopped, and the peer did "
            "not send what was under way"});
  } else {
    fail(status);
  }
  if (!broken().ok()) {
    if (const Status drained = stream_.drain(kDrainLimit_s); drained.code() == Code::kTimeout) {
      status = Status(status.code(), status.message() + "; " + drained.message() +
                                         ": what was read into must not be used again");
    }
  }
  for (; run->landed < run->flights.size(); ++run->landed) {
    give_back(run->flights[run->landed].slot);
  }
  return status;
}

Status DeviceLane::run(uint64_t offset, uint64_t bytes, const RegionMap* into,
                       const StopCondition& stop, const Arrival& arrival, Digester* digester) {
  Run run{into, stop, arrival, digester, {}, 0};
  const uint64_t end = offset + bytes;
  HPCORE_RETURN_IF_ERROR(broken());
  while (offset < end || run.waits()) {
    if (offset < end && stop()) {
      return settle(&run, {Code::kAborted, "reading state was stopped"});
    }
    const std::vector<Slot*> slots = offset < end ? take_slots(end - offset) : std::vector<Slot*>();
    if (!slots.empty()) {
      const uint64_t length = std::min(end - offset, slots.size() * options_.piece_bytes);
      if (Status status = issue(offset, length, slots, &run); !status.ok()) {
        return settle(&run, status);
      }
      offset += length;
    } else if (run.waits()) {
      if (Status status = land(&run); !status.ok()) return settle(&run, status);
    } else {
      std::unique_lock lock(mutex_);
      freed_.wait_for(lock, std::chrono::milliseconds(1));
      if (!failure_.ok()) return failure_;
    }
  }
  return {};
}

}  // namespace hpcore::transport
