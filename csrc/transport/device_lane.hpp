// Purpose: brings state into this process's memory piece by piece with a stream of a CUDA device's,
// whatever it is that fetches a piece (a copy out of a mapping, a receive). A bounded window of
// pieces is in flight, each with an event; where the bytes are to be digested, the piece is copied
// on to pinned host memory behind its arrival, so that what is digested is what lies in the
// receiver's memory. Cost of a digest: each byte once over the bus to the host and once through a
// core (31 GB/s and more), both while the next pieces arrive.
// Threads: run() is thread-safe; pieces of several threads share the window in the order of issue.
// Ownership: shares the device; owns stream and staging: slots * 2 * piece_bytes at most, of which
// half is pinned, allocated at first use.
// Lifecycle: a lane that failed is broken for good: every run() says why. No byte is written after
// a run() has returned: it waits for the stream first.
#pragma once

#include <condition_variable>
#include <mutex>
#include <span>

#include "base/futex.hpp"
#include "transport/cuda_device.hpp"
#include "transport/remote_memory.hpp"

namespace hpcore::transport {

struct LaneOptions {
  uint64_t piece_bytes = 4 << 20;
  unsigned slots = 4;
  double answer_limit_s = 2.0;  // a peer from which nothing comes for so long is given up
};

class DeviceLane {
 public:
  struct Slot {
    CudaEvent done;
    CudaBuffer scratch;  // of the device
    CudaBuffer bounce;   // of the host
    bool busy = false;
  };
  // Enqueues, on stream(), what brings [offset, offset + bytes) to `into`: piece i of piece_bytes
  // by means of slot i. One call at a time.
  using Fetch = std::function<Status(std::span<Slot* const> slots, uint64_t offset, uint64_t bytes,
                                     const RegionMap& into)>;
  // Asked while something is awaited: what is wrong with the peer.
  using Check = std::function<Status()>;
  // Called once, when the lane breaks: makes what is in flight end.
  using Cancel = std::function<void()>;
  struct Ways {
    Fetch fetch;
    Check check;
    Cancel cancel;
  };

  static Result<std::unique_ptr<DeviceLane>> open(std::shared_ptr<CudaDevice> device,
                                                  const LaneOptions& options, Ways ways);
  ~DeviceLane();
  DeviceLane(const DeviceLane&) = delete;
  DeviceLane& operator=(const DeviceLane&) = delete;

  // `into` null: the bytes are only digested. `arrival` and `digester` may be null.
  [[nodiscard]] Status run(uint64_t offset, uint64_t bytes, const RegionMap* into,
                           const StopCondition& stop, const Arrival& arrival, Digester* digester);
  // Ends everything: run() says why.
  void fail(const Status& why);

  [[nodiscard]] driver::cuda::Stream* stream() const { return stream_.get(); }
  [[nodiscard]] const std::shared_ptr<CudaDevice>& device() const { return device_; }
  [[nodiscard]] const LaneOptions& options() const { return options_; }
  // copy_ranges() on stream().
  [[nodiscard]] Status copy(const std::vector<iovec>& to, const std::vector<iovec>& from) const;
  [[nodiscard]] Status ensure(CudaBuffer* buffer, CudaBuffer::Kind kind) const;

 private:
  struct Flight {
    Slot* slot;
    uint64_t offset, bytes;
  };
  struct Run {  // one call of run()
    const RegionMap* into;
    const StopCondition& stop;
    const Arrival& arrival;
    Digester* digester;
    std::vector<Flight> flights;  // in order; the first `landed` are done
    size_t landed = 0;
    [[nodiscard]] bool waits() const { return landed < flights.size(); }
  };
  DeviceLane(std::shared_ptr<CudaDevice> device, const LaneOptions& options, Ways ways)
      : device_(std::move(device)), options_(options), ways_(std::move(ways)) {}
  Status start_slots();
  std::vector<Slot*> take_slots(uint64_t bytes);
  Status issue(uint64_t offset, uint64_t bytes, const std::vector<Slot*>& slots, Run* run);
  Status enqueue(uint64_t offset, uint64_t bytes, const std::vector<Slot*>& slots, Run* run);
  Status await(Slot* slot, const StopCondition& stop);
  Status land(Run* run);
  Status settle(Run* run, Status status);
  void give_back(Slot* slot);
  Status broken();

  std::shared_ptr<CudaDevice> device_;
  const LaneOptions options_;
  const Ways ways_;
  CudaStream stream_;
  std::mutex issuing_;  // order of fetches
  std::mutex mutex_;    // guards busy of the slots and failure_
  std::condition_variable freed_;
  std::vector<std::unique_ptr<Slot>> slots_;
  Status failure_;
};

}  // namespace hpcore::transport
