#include "torch/tensors.hpp"

#include <ATen/ATen.h>
#include <ATen/core/LegacyTypeDispatch.h>

#include "torch/error.hpp"

namespace hpcore::torch_binding {
namespace {

using collective::Buffer;
using collective::DType;
using collective::ReduceOp;

}  // namespace

void invalid(const char* op, const std::string& what) {
  raise({Code::kInvalid, std::string("hpcore ") + op + ": " + what});
}

void check_tensors(const char* op, const std::vector<at::Tensor>& tensors) {
  for (const at::Tensor& tensor : tensors) {
    if (!tensor.defined()) invalid(op, "got an undefined tensor");
    if (!tensor.device().is_cpu()) {
      raise({Code::kUnsupported,
             std::string("hpcore ") + op + ": got a tensor on " + tensor.device().str() +
                 "; the hpcore backend serves CPU tensors. For CUDA use " +
                 "init_process_group('cpu:hpcore,cuda:nccl'), or move the tensor with .cpu()"});
    }
    if (tensor.layout() != at::kStrided) {
      raise({Code::kUnsupported, std::string("hpcore ") + op +
                                     ": sparse tensors are not supported; use .to_dense(), or " +
                                     "sparse=False for the embedding that makes these gradients"});
    }
  }
}

void check_alike(const char* op, const std::vector<at::Tensor>& tensors) {
  check_tensors(op, tensors);
  for (const at::Tensor& tensor : tensors) {
    if (tensor.scalar_type() != tensors[0].scalar_type()) {
      invalid(op, std::string("all tensors must have one dtype, got ") +
                      c10::toString(tensors[0].scalar_type()) + " and " +
                      c10::toString(tensor.scalar_type()));
    }
  }
}

void check_one(const char* op, size_t lists, const char* what) {
  if (lists != 1)
    invalid(op, std::string("needs exactly one ") + what + ", got " + std::to_string(lists));
}

void check_numel(const char* op, const char* what, int64_t got, int64_t wanted) {
  if (got != wanted) {
    invalid(op, std::string(what) + " has " + std::to_string(got) + " elements, needs " +
                    std::to_string(wanted));
  }
}

namespace {

std::optional<DType> known_type(at::ScalarType type) {
  switch (type) {
    case at::kDouble:
      return DType::kFloat64;
    case at::kFloat:
      return DType::kFloat32;
    case at::kHalf:
      return DType::kFloat16;
    case at::kBFloat16:
      return DType::kBFloat16;
    case at::kFloat8_e4m3fn:
      return DType::kFloat8E4M3FN;
    case at::kFloat8_e5m2:
      return DType::kFloat8E5M2;
    case at::kComplexFloat:
      return DType::kComplex64;
    case at::kComplexDouble:
      return DType::kComplex128;
    case at::kChar:
      return DType::kInt8;
    case at::kByte:
      return DType::kUInt8;
    case at::kShort:
      return DType::kInt16;
    case at::kUInt16:
      return DType::kUInt16;
    case at::kInt:
      return DType::kInt32;
    case at::kUInt32:
      return DType::kUInt32;
    case at::kLong:
      return DType::kInt64;
    case at::kUInt64:
      return DType::kUInt64;
    case at::kBool:
      return DType::kBool;
    default:
      return std::nullopt;
  }
}

}  // namespace

DType reducible(const char* op, at::ScalarType type) {
  if (const auto known = known_type(type)) return *known;
  raise({Code::kUnsupported, std::string("hpcore ") + op + ": cannot reduce dtype " +
                                 c10::toString(type) +
                                 "; convert to float32 or an integer dtype first"});
}

DType wire_type(at::ScalarType type) { return known_type(type).value_or(DType::kUInt8); }

collective::Reduction reduction_of(const char* op, const c10d::ReduceOp& wanted) {
  switch (wanted.op_) {
    case c10d::ReduceOp::SUM:
      return {ReduceOp::kSum};
    case c10d::ReduceOp::AVG:
      return {ReduceOp::kAvg};
    case c10d::ReduceOp::PRODUCT:
      return {ReduceOp::kProduct};
    case c10d::ReduceOp::MIN:
      return {ReduceOp::kMin};
    case c10d::ReduceOp::MAX:
      return {ReduceOp::kMax};
    case c10d::ReduceOp::BAND:
      return {ReduceOp::kBitAnd};
    case c10d::ReduceOp::BOR:
      return {ReduceOp::kBitOr};
    case c10d::ReduceOp::BXOR:
      return {ReduceOp::kBitXor};
    case c10d::ReduceOp::PREMUL_SUM: {
      const auto* supplement = static_cast<c10d::PreMulSumSupplement*>(wanted.supplement_.get());
      if (supplement == nullptr) break;
      const at::Tensor& factor = supplement->tensor_factor;
      return {ReduceOp::kPremulSum,
              factor.defined() ? factor.item<double>() : supplement->double_factor};
    }
    case c10d::ReduceOp::UNUSED:
      break;
  }
  raise({Code::kUnsupported,
         std::string("hpcore ") + op + ": unknown reduce op number " +
             std::to_string(static_cast<int>(wanted.op_)) +
             "; known: SUM, AVG, PRODUCT, MIN, MAX, BAND, BOR, BXOR, PREMUL_SUM"});
}

Staged::Staged(const std::vector<at::Tensor>& tensors, Use use) {
  const at::AutoDispatchBelowADInplaceOrView below;
  contiguous_.reserve(tensors.size());
  for (const at::Tensor& tensor : tensors) {
    if (tensor.is_contiguous() && !tensor.is_conj() && !tensor.is_neg()) {
      contiguous_.push_back(tensor);
    } else if (use == Use::kWrite) {
      contiguous_.push_back(at::empty(tensor.sizes(), tensor.options()));
    } else {
      contiguous_.push_back(tensor.resolve_conj().resolve_neg().contiguous());
    }
    if (use != Use::kRead) originals_.push_back(tensor);
  }
}

void Staged::copy_back() {
  const at::AutoDispatchBelowADInplaceOrView
      below;  // inference tensors, leaves that need a gradient
  for (size_t i = 0; i < originals_.size(); ++i) {
    if (!originals_[i].is_same(contiguous_[i])) originals_[i].copy_(contiguous_[i]);
  }
}

std::vector<Buffer> Staged::buffers(DType wire) const {
  std::vector<Buffer> buffers;
  buffers.reserve(contiguous_.size());
  for (const at::Tensor& t : contiguous_)
    buffers.push_back({t.data_ptr(), t.nbytes() / size_of(wire)});
  return buffers;
}

std::vector<Buffer> split(const at::Tensor& tensor, int parts, DType wire) {
  const size_t each = tensor.nbytes() / static_cast<size_t>(parts);
  std::vector<Buffer> buffers;
  for (int i = 0; i < parts; ++i) {
    buffers.push_back({static_cast<char*>(tensor.data_ptr()) + each * static_cast<size_t>(i),
                       each / size_of(wire)});
  }
  return buffers;
}

std::vector<Buffer> split(const char* op, const at::Tensor& tensor, int parts,
                          const std::vector<int64_t>& rows, DType wire) {
  const int64_t first = tensor.dim() == 0 ? 1 : tensor.size(0);
  if (rows.empty()) {
    if (first % parts != 0) {
      invalid(op, "the first dimension, " + std::to_string(first) +
                      ", cannot be split evenly among " + std::to_string(parts) +
                      " ranks; give split sizes");
    }
    return split(tensor, parts, wire);
  }
  int64_t total = 0;
  for (const int64_t n : rows) total += n;
  if (static_cast<int>(rows.size()) != parts || total != first) {
    invalid(op, "needs " + std::to_string(parts) +
                    " split sizes that sum to the first dimension, " + std::to_string(first) +
                    "; got " + std::to_string(rows.size()) + " that sum to " +
                    std::to_string(total));
  }
  const size_t row_bytes = first == 0 ? 0 : tensor.nbytes() / static_cast<size_t>(first);
  auto* at = static_cast<char*>(tensor.data_ptr());
  std::vector<Buffer> buffers;
  for (const int64_t n : rows) {
    const size_t bytes = row_bytes * static_cast<size_t>(n);
    buffers.push_back({at, bytes / size_of(wire)});
    at += bytes;
  }
  return buffers;
}

}  // namespace hpcore::torch_binding
