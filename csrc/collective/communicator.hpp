// Purpose: collective operations over a Channel: shared memory of one node, one generation.
// Results are reduced strictly in rank order, so they depend on the inputs and the number of ranks
// only, and have the same bits on all ranks.
// Threads: operations are externally serialised, one at a time; abort() and close() from any
// thread. Ownership: shares its Channel. Buffers belong to the caller and must stay valid during
// the call. Lifecycle: one communicator for each channel and generation. Blocking calls end with
//   kOk; kRevoked (the generation is over); kAborted; kTimeout (names the missing ranks);
//   kMismatch (ranks asked for different things; all ranks get it, and the communicator goes on).
// After kTimeout and an interrupted call ranks may disagree about what is done, so this
// communicator refuses everything until a new generation replaces it. Buffers that an operation
// writes are undefined when it does not end with kOk.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "collective/channel.hpp"
#include "collective/dtype.hpp"
#include "collective/virtual_range.hpp"

namespace hpcore::collective {

class Operation;

class Communicator {
 public:
  // kInvalid if this member already had a communicator in this generation: its words are used up.
  static Result<std::shared_ptr<Communicator>> create(std::shared_ptr<Channel> channel);
  // Every operation completes at once, as if each rank had contributed what the caller has, except
  // that reductions return the caller's own data unscaled. Rank: the last.
  static std::shared_ptr<Communicator> rehearsal(int world_size);

  [[nodiscard]] int rank() const { return rank_; }
  [[nodiscard]] int size() const { return size_; }
  [[nodiscard]] uint64_t generation() const { return channel_ ? channel_->generation() : 0; }
  [[nodiscard]] bool rehearsing() const { return channel_ == nullptr; }
  [[nodiscard]] uint64_t sequence() const { return sequence_; }  // operations begun; any thread

  // In place; a list of buffers is one range, and only its total must agree between ranks.
  Status all_reduce(Buffers buffers, DType dtype, Reduction reduction, const Limits& limits);
  // In place at root; the other ranks' buffers are only read.
  Status reduce(Buffers buffers, DType dtype, Reduction reduction, int root, const Limits& limits);
  Status broadcast(Buffers buffers, DType dtype, int root, const Limits& limits);
  Status barrier(const Limits& limits);

  // outputs[r] receives rank r's input; sizes may differ, all ranks must agree on them. input may
  // be outputs[rank()] itself.
  Status all_gather(Buffer input, Buffers outputs, DType dtype, const Limits& limits);
  // outputs: one a rank at root, else empty.
  Status gather(Buffer input, Buffers outputs, DType dtype, int root, const Limits& limits);
  // inputs: one a rank at root, else empty.
  Status scatter(Buffers inputs, Buffer output, DType dtype, int root, const Limits& limits);
  // output receives the reduction of all ranks' inputs[rank()]; sizes may differ by rank. output
  // may be inputs[rank()] itself.
  Status reduce_scatter(Buffers inputs, Buffer output, DType dtype, Reduction reduction,
                        const Limits& limits);
  // Rank s's inputs[r] goes to rank r's outputs[s]; sizes may differ. No input may overlap an
  // output.
  Status all_to_all(Buffers inputs, Buffers outputs, DType dtype, const Limits& limits);
  // One string of any size from each rank.
  Result<std::vector<std::string>> all_gather_bytes(std::string_view data, const Limits& limits);

  void abort();  // ends the operation under way with kAborted, and all later ones
  void close() { abort(); }
  [[nodiscard]] const std::shared_ptr<Channel>& channel() const { return channel_; }

 private:
  friend class Operation;
  Communicator(std::shared_ptr<Channel> channel, int rank, int size);
  // root -1: everybody wants the result.
  Status run_reduction(Buffers buffers, DType dtype, Reduction reduction, int root,
                       const Limits& limits);
  Status check_root(const char* what, int root) const;

  std::shared_ptr<Channel> channel_;  // null: rehearsal
  int rank_;
  int size_;
  std::atomic<uint64_t> sequence_{0};
  uint64_t step_ = 0;  // the same on all ranks between operations
  Status broken_;
  std::atomic<bool> aborted_{false};  // rehearsal has no channel
};

}  // namespace hpcore::collective
