// all_reduce and reduce. Small: each rank that wants the result reduces all of it from the others'
// staging: one step. Large: chunk by chunk, rank r reduces segment r of the chunk from all, the
// segments are then gathered. Both give (x0 op x1) op x2 ... for each element: the same bits.
#include "collective/kernels.hpp"
#include "collective/operation.hpp"
#include "collective/rehearsal.hpp"

namespace hpcore::collective {
namespace {

// Up to this many bytes in all ranks together one step is cheaper than two; see
// bench/test_bench_collective.py.
constexpr size_t kOneStepBytes = size_t{256} << 10;
// The part of a segment that is reduced and copied to staging while it is in the first-level cache.
constexpr size_t kCacheBytes = size_t{16} << 10;

struct Segment {
  size_t offset;  // within the chunk
  size_t bytes;
};

}  // namespace

struct ReduceTask {
  Operation& op;
  VirtualRange& range;
  ReduceKernel kernel;
  KernelArguments arguments;
  size_t element_bytes;
  bool wants_result;
  bool shares_result;  // somebody else wants this rank's segments
  size_t chunk_bytes;

  [[nodiscard]] size_t chunk_length(uint64_t step) const {
    return std::min(chunk_bytes, range.bytes() - std::min(range.bytes(), step * chunk_bytes));
  }
  [[nodiscard]] Segment segment(uint64_t step, int rank) const {
    const size_t length = chunk_length(step);
    const auto ranks = static_cast<size_t>(op.size());
    const size_t share = ((length + ranks - 1) / ranks + 63) / 64 * 64;
    const size_t from = std::min(length, share * static_cast<size_t>(rank));
    return {from, std::min(share, length - from)};
  }

  // Sources in rank order: this rank's own part comes from the user's memory, the others' from
  // their staging at `offset`.
  void reduce_part(std::byte* target, const std::byte* own, size_t offset, size_t bytes,
                   uint64_t step) const {
    const void* sources[kMaxMembers];
    for (int rank = 0; rank < op.size(); ++rank) {
      sources[rank] = rank == op.rank() ? own : op.buffer(rank, step) + offset;
    }
    kernel(target, sources, op.size(), bytes / element_bytes, arguments);
  }

  void fill_all(uint64_t step, std::byte* to) const {
    range.copy_to(to, step * chunk_bytes, chunk_length(step));
  }
  void fill_others(uint64_t step, std::byte* to) const {
    for (int rank = 0; rank < op.size(); ++rank) {
      const Segment part = segment(step, rank);
      if (rank == op.rank() || part.bytes == 0) continue;
      range.copy_to(to + part.offset, step * chunk_bytes + part.offset, part.bytes);
    }
  }
  void reduce_everything() const {
    range.each(0, range.bytes(), [&](std::byte* own, size_t bytes, size_t done) {
      reduce_part(own, own, done, bytes, 0);
    });
  }
  void reduce_segment(uint64_t step) const {
    const Segment part = segment(step, op.rank());
    std::byte* staging = op.buffer(op.rank(), step);
    // Never straight into staging: memcpy takes lines that another core has faster than stores do.
    alignas(64) std::byte near[kCacheBytes];
    range.each(step * chunk_bytes + part.offset, part.bytes,
               [&](std::byte* own, size_t bytes, size_t done) {
                 for (size_t at = 0; at < bytes; at += kCacheBytes) {
                   const size_t n = std::min(kCacheBytes, bytes - at);
                   const size_t offset = part.offset + done + at;
                   std::byte* target = wants_result ? own + at : near;
                   reduce_part(target, own + at, offset, n, step);
                   if (shares_result) std::memcpy(staging + offset, target, n);
                 }
               });
  }
  void gather_segments(uint64_t step) const {
    if (!wants_result) return;
    for (int rank = 0; rank < op.size(); ++rank) {
      const Segment part = segment(step, rank);
      if (rank == op.rank() || part.bytes == 0) continue;
      range.copy_from(op.buffer(rank, step) + part.offset, step * chunk_bytes + part.offset,
                      part.bytes);
    }
  }

  Status in_one_step() const {
    HPCORE_RETURN_IF_ERROR(
        op.meet(true, Operation::kAll, [&](uint64_t step, std::byte* to) { fill_all(step, to); }));
    if (wants_result) reduce_everything();
    return {};
  }
  // Fills one chunk ahead and gathers one chunk behind, so that no wait is for what the others do
  // in the same turn.
  Status in_segments(uint64_t steps) const {
    HPCORE_RETURN_IF_ERROR(op.meet(true, Operation::kAll,
                                   [&](uint64_t step, std::byte* to) { fill_others(step, to); }));
    for (uint64_t step = 0; step <= steps; ++step) {
      if (step + 1 < steps) {
        HPCORE_RETURN_IF_ERROR(op.may_fill(step + 1));
        fill_others(step + 1, op.buffer(op.rank(), step + 1));
        op.post(&ControlBlock::filled, step + 1);
      }
      if (step < steps) {
        HPCORE_RETURN_IF_ERROR(op.await(&ControlBlock::filled, step));
        reduce_segment(step);
        op.post(&ControlBlock::reduced, step);
      }
      if (step > 0) {
        if (wants_result) HPCORE_RETURN_IF_ERROR(op.await(&ControlBlock::reduced, step - 1));
        gather_segments(step - 1);
        op.post(&ControlBlock::drained, step - 1);
      }
    }
    return {};
  }
};

Status Communicator::run_reduction(Buffers buffers, DType dtype, Reduction reduction, int root,
                                   const Limits& limits) {
  const ReduceKernel kernel = find_kernel(dtype, reduction.op);
  if (kernel == nullptr) return no_such_reduction(dtype, reduction.op);
  if (rehearsing()) return rehearsal_standing(aborted_);
  const size_t element_bytes = size_of(dtype);
  VirtualRange range(buffers, element_bytes);
  const bool to_all = root == Operation::kAll;
  Operation op(
      *this,
      {to_all ? OpKind::kAllReduce : OpKind::kReduce, dtype, reduction, root, range.elements()},
      limits);
  HPCORE_RETURN_IF_ERROR(op.begin());
  ReduceTask task{op,
                  range,
                  kernel,
                  {reduction.factor, size_},
                  element_bytes,
                  to_all || root == rank_,
                  size_ > 1 && (to_all || root != rank_),
                  0};
  if (range.bytes() <= std::min(kOneStepBytes / static_cast<size_t>(size_), op.buffer_bytes())) {
    task.chunk_bytes = op.buffer_bytes();
    return op.end(1, task.in_one_step());
  }
  // Chunks of about the same length, in whole pages, as staging buffers are.
  constexpr size_t kPage = 4096;
  const auto quotient = [](size_t n, size_t unit) { return (n + unit - 1) / unit; };
  const size_t fewest = quotient(range.bytes(), op.buffer_bytes());
  task.chunk_bytes = quotient(quotient(range.bytes(), fewest), kPage) * kPage;
  const uint64_t steps = quotient(range.bytes(), task.chunk_bytes);
  return op.end(steps, task.in_segments(steps));
}

Status Communicator::all_reduce(Buffers buffers, DType dtype, Reduction reduction,
                                const Limits& limits) {
  return run_reduction(buffers, dtype, reduction, Operation::kAll, limits);
}

Status Communicator::reduce(Buffers buffers, DType dtype, Reduction reduction, int root,
                            const Limits& limits) {
  HPCORE_RETURN_IF_ERROR(check_root("reduce", root));
  return run_reduction(buffers, dtype, reduction, root, limits);
}

}  // namespace hpcore::collective
