#include "collective/operation.hpp"

#include <algorithm>
#include <bit>
#include <cstdio>

namespace hpcore::collective {
namespace {

uint64_t mixed(uint64_t hash, uint64_t value) {  // splitmix64's finaliser
  uint64_t x = (hash ^ value) + 0x9E3779B97F4A7C15u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

std::string describe_header(const OpHeader& header) {
  const auto kind = static_cast<OpKind>(header.kind);
  std::string text = name_of(kind);
  if (kind == OpKind::kBarrier) return text + "()";
  text += "(";
  if (kind == OpKind::kAllReduce || kind == OpKind::kReduce || kind == OpKind::kReduceScatter) {
    text += std::string(name_of(static_cast<ReduceOp>(header.reduce_op))) + ", ";
  }
  text += std::string(name_of(static_cast<DType>(header.dtype))) + ", " +
          std::to_string(header.elements) + " elements";
  if (header.root >= 0) text += ", root " + std::to_string(header.root);
  return text + ")";
}

std::string seconds_since(TimePoint begun) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.2f s",
                std::chrono::duration<double>(Clock::now() - begun).count());
  return text;
}

}  // namespace

const char* name_of(OpKind kind) {
  constexpr const char* kNames[] = {"nothing",        "all_reduce", "reduce",          "broadcast",
                                    "barrier",        "all_gather", "gather",          "scatter",
                                    "reduce_scatter", "all_to_all", "all_gather_bytes"};
  const auto index = static_cast<uint32_t>(kind);
  return index < std::size(kNames) ? kNames[index] : "an unknown operation";
}

uint64_t hash_sizes(Buffers buffers) {
  uint64_t hash = buffers.size();
  for (const Buffer& buffer : buffers) hash = mixed(hash, buffer.elements);
  return hash;
}

Operation::Operation(Communicator& communicator, const OpRequest& request, const Limits& limits)
    : communicator_(communicator),
      channel_(*communicator.channel_),
      request_(request),
      limits_(limits),
      begun_(Clock::now()) {}

Operation::~Operation() {
  if (inside_) channel_.leave();
}

Status Operation::begin() {
  if (!communicator_.broken_.ok()) {
    HPCORE_RETURN_IF_ERROR(channel_.standing());
    return communicator_.broken_;
  }
  HPCORE_RETURN_IF_ERROR(channel_.enter(limits_));
  inside_ = true;
  base_ = communicator_.step_;
  sequence_ = ++communicator_.sequence_;
  ControlBlock& own = channel_.own();
  OpHeader& header = own.headers[sequence_ & 1];
  header = {sequence_,
            static_cast<uint32_t>(request_.kind),
            static_cast<uint32_t>(request_.dtype),
            static_cast<uint32_t>(request_.reduction.op),
            request_.root,
            request_.elements,
            std::bit_cast<uint64_t>(request_.reduction.factor),
            request_.split_hash};
  signature_ = mixed(header.kind, header.dtype);
  signature_ = mixed(signature_, header.reduce_op);
  signature_ = mixed(signature_, static_cast<uint32_t>(header.root));
  signature_ = mixed(signature_, header.split_hash);
  signature_ = mixed(signature_, header.factor_bits);
  if (request_.same_elements) signature_ = mixed(signature_, header.elements);
  own.signature[sequence_ & 1].store(signature_, std::memory_order_relaxed);
  own.begun.store(stamp(channel_.generation(), sequence_), std::memory_order_relaxed);
  own.drained.store(stamp(channel_.generation(), base_), std::memory_order_release);
  return {};
}

void Operation::post(Word word, uint64_t step) {
  (channel_.own().*word)
      .store(stamp(channel_.generation(), base_ + 1 + step), std::memory_order_release);
  channel_.ring_others();
}

Status Operation::may_fill(uint64_t step, int reader) {
  const uint64_t count = base_ + 1 + step;
  if (count <= kBuffers) return {};
  // What the first steps overwrite is an earlier operation's, which may have had other readers.
  if (step < kBuffers) reader = kAll;
  // await() adds base_ + 1 again; unsigned arithmetic lets the step be "negative".
  return await(&ControlBlock::drained, step - kBuffers, reader);
}

Status Operation::await(Word word, uint64_t step, int rank) {
  const uint64_t target = stamp(channel_.generation(), base_ + 1 + step);
  int next = rank == kAll ? 0 : rank;
  const int last = rank == kAll ? channel_.size() : rank + 1;
  bool newer = false;
  const auto reached = [&] {
    for (; next < last; ++next) {
      if (next == channel_.index()) continue;
      const uint64_t seen = (channel_.control(next).*word).load(std::memory_order_acquire);
      if (seen < target) return false;
      newer |= generation_of(seen) != channel_.generation();
    }
    return true;
  };
  Status interrupted;
  WaitEnd end = WaitEnd::kReady;
  if (!channel_.watches_members()) {
    end = channel_.wait(reached, limits_, &interrupted);
  } else if (!reached()) {
    const std::function<Status()> poll = [&] {
      if (limits_.poll) HPCORE_RETURN_IF_ERROR((*limits_.poll)());
      return reached() ? Status() : find_dead(word, target, next, last);
    };
    end = channel_.wait(reached, {limits_.deadline, &poll}, &interrupted);
  }
  if (end != WaitEnd::kReady) return stopped(word, target, rank, end, interrupted);
  if (newer) {
    return {Code::kRevoked, "generation " + std::to_string(channel_.generation()) +
                                " is over: another rank already takes part in a newer one"};
  }
  return {};
}

Status Operation::meet() {
  post(&ControlBlock::filled, 0);
  HPCORE_RETURN_IF_ERROR(await(&ControlBlock::filled, 0));
  return compare_headers();
}

Status Operation::compare_headers() {
  for (int other = 0; other < channel_.size(); ++other) {
    ControlBlock& control = channel_.control(other);
    const uint64_t seen = control.signature[sequence_ & 1].load(std::memory_order_relaxed);
    if (seen == signature_) continue;
    const OpHeader& header = control.headers[sequence_ & 1];
    const OpHeader& own = channel_.own().headers[sequence_ & 1];
    std::string text = "rank " + std::to_string(rank()) + " called " + describe_header(own) +
                       " as operation " + std::to_string(own.sequence) + ", rank " +
                       std::to_string(other) + " called " + describe_header(header) +
                       " as operation " + std::to_string(header.sequence);
    if (header.split_hash != own.split_hash) text += "; they also differ in the sizes per rank";
    if (header.factor_bits != own.factor_bits) text += "; they also differ in the factor";
    return mismatch(text);
  }
  return {};
}

Status Operation::mismatch(const std::string& what) const {
  return {Code::kMismatch, "ranks disagree in generation " + std::to_string(channel_.generation()) +
                               ": " + what +
                               ". All ranks must call the same operations in the same order"};
}

Status Operation::valid() const {
  std::atomic_thread_fence(std::memory_order_acquire);
  return channel_.revoked() ? channel_.standing() : Status();
}

Status Operation::end(uint64_t steps, Status outcome) {
  if (outcome.ok() || outcome.code() == Code::kMismatch) {
    HPCORE_RETURN_IF_ERROR(valid());
    // After a mismatch nobody has posted anything past step 0.
    if (!outcome.ok()) steps = 1;
    if (steps > 1) post(&ControlBlock::drained, steps - 1);
    communicator_.step_ = base_ + std::max<uint64_t>(steps, 1);
  } else if (outcome.code() != Code::kRevoked) {
    communicator_.broken_ = {Code::kAborted,
                             "this communicator cannot go on since " + describe() +
                                 " ended early, because ranks may disagree about it; a new "
                                 "generation gets a new one. It ended with: " +
                                 outcome.message()};
  }
  return outcome;
}

// Looks at a few of those who are missing: it is called again while they are.
Status Operation::find_dead(Word word, uint64_t target, int first, int last) const {
  constexpr int kMostLooks = 8;
  const auto missing = [&](int rank) {
    return rank != channel_.index() &&
           (channel_.control(rank).*word).load(std::memory_order_acquire) < target;
  };
  int looks = 0;
  for (int rank = first; rank < last && looks < kMostLooks; ++rank) {
    if (!missing(rank)) continue;
    ++looks;
    if (!channel_.dead(rank) || !missing(rank)) continue;  // what it did before it died counts
    return {Code::kPeerDead,
            "rank " + std::to_string(rank) + " of " + std::to_string(channel_.size()) + " (pid " +
                std::to_string(channel_.pid_of(rank)) + ") has ended, and " + describe() +
                " cannot: seen by rank " + std::to_string(channel_.index()) + " after " +
                seconds_since(begun_) + ". See its log"};
  }
  return {};
}

std::string Operation::describe() const {
  return describe_header(channel_.own().headers[sequence_ & 1]) + ", operation " +
         std::to_string(sequence_);
}

Status Operation::stopped(Word word, uint64_t target, int rank, WaitEnd end,
                          const Status& interrupted) {
  if (end == WaitEnd::kTimeout) return timed_out(word, target, rank);
  if (end == WaitEnd::kInterrupted) return interrupted;
  Status standing = channel_.standing();
  return {standing.code(), standing.message() + "; it was in " + describe()};
}

Status Operation::timed_out(Word word, uint64_t target, int rank) const {
  std::string missing;
  int count = 0;
  for (int other = 0; other < channel_.size(); ++other) {
    if (other == channel_.index() || (rank != kAll && other != rank)) continue;
    const ControlBlock& control = channel_.control(other);
    if ((control.*word).load(std::memory_order_acquire) >= target) continue;
    // Not the headers: that rank may be writing them now.
    const uint64_t begun = control.begun.load(std::memory_order_relaxed);
    missing += (count++ ? ", " : "") + std::to_string(other);
    if (generation_of(begun) != channel_.generation()) {
      missing += " (never arrived in this generation)";
    } else {
      missing += " (last seen in operation " + std::to_string(count_of(begun)) + ")";
    }
  }
  return {Code::kTimeout, describe() + " timed out after " + seconds_since(begun_) + ": " +
                              std::to_string(count) + " of " + std::to_string(channel_.size()) +
                              " ranks are missing: " + missing + "; generation " +
                              std::to_string(channel_.generation()) + ", seen by rank " +
                              std::to_string(channel_.index()) + ". See their logs"};
}

}  // namespace hpcore::collective
