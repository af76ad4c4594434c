// Purpose: one thread's way to one peer: a port on each rail, and a bounded window of reads in
// flight. Reads are cut into pieces, spread over the rails, and announced in order.
// Threads: one thread at a time. Ownership: shares the fabric and the peer's description.
// Lifecycle: a stream that is stopped waits for what is in flight, within limits. After an error
// the lane is broken: its ports are closed, so that nothing that was in flight can still be written
// to the caller's memory.
#pragma once

#include <memory>

#include "base/futex.hpp"
#include "transport/fabric.hpp"
#include "transport/fabric_address.hpp"
#include "transport/fabric_wait.hpp"
#include "transport/remote_memory.hpp"

namespace hpcore::transport {

// A peer's address, ready for use: immutable.
struct FabricPeer {
  FabricAddress address;
  RegionMap regions;
  std::vector<size_t> ranges;                    // range of each region
  std::vector<std::pair<size_t, size_t>> rails;  // (ours, the peer's)

  // kCorrupt, kMismatch (another protocol).
  static Result<std::shared_ptr<const FabricPeer>> of(const Fabric& fabric,
                                                      const std::string& address);
};

class FabricLane {
 public:
  static Result<std::unique_ptr<FabricLane>> open(std::shared_ptr<Fabric> fabric,
                                                  std::shared_ptr<const FabricPeer> peer);
  ~FabricLane();
  FabricLane(const FabricLane&) = delete;
  FabricLane& operator=(const FabricLane&) = delete;

  Status stream(uint64_t offset, uint64_t bytes, const RegionMap& into, const StopCondition& stop,
                const Arrival& arrival);
  [[nodiscard]] bool broken() const { return ports_.empty(); }
  [[nodiscard]] bool emulated() const { return emulated_; }

 private:
  static constexpr size_t kPieces = 4;  // of memory, in one read

  struct Operation {
    void* provider_space[8];  // first: libfabric's context, which it may write to
    uint64_t offset = 0;
    uint64_t bytes = 0;
    size_t rail = 0;
    size_t pieces = 0;
    bool done = false;
    iovec local[kPieces];   // where the bytes are to lie
    iovec target[kPieces];  // where they are read to: there, or in the bounce buffer
    void* descriptors[kPieces];
    driver::fi::RmaIov remote[kPieces];
    std::shared_ptr<const Registration> held[kPieces];
  };
  // Where a stream stands. Operations are numbered; number n lies in slot n mod slots.
  struct Progress {
    uint64_t next = 0;  // first byte that no operation reads yet
    uint64_t end = 0;
    uint64_t in_flight_bytes = 0;
    size_t head = 0;    // oldest operation that is not announced
    size_t posted = 0;  // operations given to libfabric
    size_t built = 0;   // posted, or posted + 1 where libfabric took none
  };

  FabricLane(std::shared_ptr<Fabric> fabric, std::shared_ptr<const FabricPeer> peer);
  Status open_ports();
  Operation& slot(size_t number) { return operations_[number % operations_.size()]; }
  bool extend(Operation* operation, const iovec& local, const driver::fi::RmaIov& remote);
  Status build(Progress* progress, const RegionMap& into);
  Status place(Operation* operation, size_t piece, const Region& whole);
  Status post(Progress* progress, const RegionMap& into, bool* any);
  Status reap(bool* any);
  Status announce(Progress* progress, const Arrival& arrival, bool* any);
  Status turn(Progress* progress, const RegionMap& into, const Arrival& arrival, bool* any);
  Status completion_error(const FabricPort& port);
  [[nodiscard]] bool in_flight() const;
  void settle(void* context);  // of a completion
  void flush();
  Status give_up(Status status);
  Status stopped(Progress* progress);
  [[nodiscard]] Region bounce_region() const;

  std::shared_ptr<Fabric> fabric_;
  std::shared_ptr<const FabricPeer> peer_;
  // Where reads must not go straight into the caller's memory: a piece for each operation. Given up
  // with the lane, never freed, if a peer may still write to it.
  std::unique_ptr<unsigned char[]> bounce_;
  size_t bounce_bytes_ = 0;
  std::vector<Operation> operations_;
  std::vector<FabricPort> ports_;  // closed before the operations go
  std::vector<uint64_t> peers_;    // the peer's handle, by port
  std::vector<uint64_t> loads_;    // bytes in flight, by port
  bool failed_ = false;            // a read ended with an error
  std::unique_ptr<FabricWait> waiter_;
  size_t pieces_limit_ = 1;
  bool emulated_ = false;
};

}  // namespace hpcore::transport
