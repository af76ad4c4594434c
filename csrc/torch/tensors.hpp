// Purpose: from tensors to the buffers, types and reductions of the collective room; refuses what
// it does not know, with the way out in the message. Threads: pure functions; Staged belongs to one
// operation. Ownership: Staged holds the tensors it made.
#pragma once

#include <ATen/core/Tensor.h>

#include <torch/csrc/distributed/c10d/Types.hpp>
#include <vector>

#include "collective/communicator.hpp"

namespace hpcore::torch_binding {

// Raises unless all are dense CPU tensors.
void check_tensors(const char* op, const std::vector<at::Tensor>& tensors);
// Also that all have one dtype.
void check_alike(const char* op, const std::vector<at::Tensor>& tensors);
void check_one(const char* op, size_t lists, const char* what);  // a list of exactly one
void check_numel(const char* op, const char* what, int64_t got, int64_t wanted);
[[noreturn]] void invalid(const char* op, const std::string& what);

// Raises if the collectives cannot reduce it.
collective::DType reducible(const char* op, at::ScalarType type);
// How a tensor that is only copied is described to the other ranks: an unknown type as bytes.
collective::DType wire_type(at::ScalarType type);
collective::Reduction reduction_of(const char* op, const c10d::ReduceOp& op_and_factor);

// Contiguous stand-ins for tensors that are not contiguous; copied back after the operation if
// written.
class Staged {
 public:
  enum class Use { kRead, kWrite, kReadWrite };

  Staged() = default;
  Staged(const std::vector<at::Tensor>& tensors, Use use);

  void copy_back();
  [[nodiscard]] const std::vector<at::Tensor>& contiguous() const { return contiguous_; }
  [[nodiscard]] std::vector<collective::Buffer> buffers(collective::DType wire) const;

 private:
  std::vector<at::Tensor> originals_;  // only those that are written
  std::vector<at::Tensor> contiguous_;
};

// `parts` buffers of equal size, one after the other, in one contiguous tensor.
std::vector<collective::Buffer> split(const at::Tensor& tensor, int parts, collective::DType wire);
// Sizes along the first dimension; empty: equal parts.
std::vector<collective::Buffer> split(const char* op, const at::Tensor& tensor, int parts,
                                      const std::vector<int64_t>& rows, collective::DType wire);

}  // namespace hpcore::torch_binding
