// Purpose: one collective operation of a Communicator: its header and comparison with the other
// ranks', its steps, the waits between them, and what an error says.
// Threads: one thread. Ownership: borrows the communicator for the length of the call.
// Lifecycle: begin(), steps from 0 on, end(). Step 0 is awaited from all ranks by all ranks before
// anything later is posted: it is there that they find out whether they mean the same operation.
//
// A step: `may_fill` (nobody still reads what this buffer held kBuffers steps ago), write own
// buffer(), `post(filled)`; others `await(filled)`, read, `post(drained)`. The reduction in
// segments has one more phase in between, `reduced`.
#pragma once

#include "collective/communicator.hpp"

namespace hpcore::collective {

enum class OpKind : uint32_t {
  kNone,
  kAllReduce,
  kReduce,
  kBroadcast,
  kBarrier,
  kAllGather,
  kGather,
  kScatter,
  kReduceScatter,
  kAllToAll,
  kAllGatherBytes,
};
[[nodiscard]] const char* name_of(OpKind kind);

struct OpRequest {
  OpKind kind = OpKind::kNone;
  DType dtype = DType::kUInt8;
  Reduction reduction = {};
  int root = -1;
  uint64_t elements = 0;
  bool same_elements = true;  // false: ranks may differ, own_sizes() tells
  uint64_t split_hash = 0;    // hash_sizes() where all ranks must agree on the sizes per rank
};
[[nodiscard]] uint64_t hash_sizes(Buffers buffers);

class Operation {
 public:
  static constexpr int kAll = -1;
  using Word = StampWord ControlBlock::*;

  Operation(Communicator& communicator, const OpRequest& request, const Limits& limits);
  ~Operation();
  Operation(const Operation&) = delete;
  Operation& operator=(const Operation&) = delete;

  Status begin();
  // Where begin() found room for sizes that differ by rank; filled before step 0 is posted.
  [[nodiscard]] uint64_t* own_sizes() { return sizes_of(channel_.index()); }
  [[nodiscard]] uint64_t* sizes_of(int rank) { return channel_.control(rank).sizes[sequence_ & 1]; }

  [[nodiscard]] std::byte* buffer(int rank, uint64_t step) const {
    return channel_.member(rank).staging + (base_ + 1 + step) % kBuffers * channel_.buffer_bytes();
  }
  Status may_fill(uint64_t step, int reader = kAll);
  void post(Word word, uint64_t step);
  Status await(Word word, uint64_t step, int rank = kAll);
  // Fills step 0, posts it, awaits it from all, compares headers. kMismatch: all ranks get it.
  template <typename Fill>
  Status meet(bool writes, int reader, Fill fill) {
    if (writes) {
      HPCORE_RETURN_IF_ERROR(may_fill(0, reader));
      fill(uint64_t{0}, buffer(rank(), 0));
    }
    return meet();
  }
  Status meet();
  // A mismatch that all ranks find, after meet(): pass it to end().
  [[nodiscard]] Status mismatch(const std::string& what) const;
  // What was read from others so far was theirs: a member that died may have lost its memory to a
  // newer process meanwhile, but not before this generation was revoked.
  [[nodiscard]] Status valid() const;
  // The operation took `steps` steps. Whatever was read is valid only if this is ok.
  Status end(uint64_t steps, Status outcome = {});

  [[nodiscard]] int rank() const { return channel_.index(); }
  [[nodiscard]] int size() const { return channel_.size(); }
  [[nodiscard]] size_t buffer_bytes() const { return channel_.buffer_bytes(); }
  [[nodiscard]] std::string describe() const;

 private:
  [[nodiscard]] Status find_dead(Word word, uint64_t target, int first, int last) const;
  Status timed_out(Word word, uint64_t target, int rank) const;
  Status stopped(Word word, uint64_t target, int rank, WaitEnd end, const Status& interrupted);
  Status compare_headers();

  Communicator& communicator_;
  Channel& channel_;
  OpRequest request_;
  const Limits& limits_;
  TimePoint begun_;
  bool inside_ = false;
  uint64_t sequence_ = 0;
  uint64_t base_ = 0;
  uint64_t signature_ = 0;
};

// Runs `steps` steps in which `writer` (or all) fills and `reader` (or all) drains, filling ahead
// while others are slow. fill(step, own buffer), drain(step).
template <typename Fill, typename Drain>
Status run_steps(Operation& op, uint64_t steps, int writer, int reader, Fill fill, Drain drain) {
  constexpr uint64_t kAhead = kBuffers - 2;
  const bool writes = writer == Operation::kAll || writer == op.rank();
  const bool reads = reader == Operation::kAll || reader == op.rank();
  uint64_t filled = 1;  // meet() filled step 0
  for (uint64_t step = 0; step < steps; ++step) {
    for (; writes && filled < steps && filled <= step + kAhead; ++filled) {
      HPCORE_RETURN_IF_ERROR(op.may_fill(filled, reader));
      fill(filled, op.buffer(op.rank(), filled));
      op.post(&ControlBlock::filled, filled);
    }
    if (!reads) continue;
    if (step > 0) HPCORE_RETURN_IF_ERROR(op.await(&ControlBlock::filled, step, writer));
    drain(step);
    op.post(&ControlBlock::drained, step);
  }
  return {};
}

}  // namespace hpcore::collective
