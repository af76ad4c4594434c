// Point-to-point operations.
#include "torch/backend.hpp"
#include "torch/error.hpp"

namespace hpcore::torch_binding {

using c10d::OpType;

WorkPtr HpcoreBackend::post(const Call& call, Staged staged, int peer, int tag) {
  auto work = begin(call);
  const TimePoint deadline = Clock::now() + chosen(call.timeout);
  const auto exchange = check(group_->exchange(deadline));
  auto* raw = work.get();
  work->set_driver([raw, exchange] { exchange->drive([raw] { return raw->isCompleted(); }); });
  const at::Tensor& tensor = staged.contiguous()[0];
  ExchangeRequest request{tensor.data_ptr(),
                          tensor.nbytes(),
                          peer,
                          tag,
                          deadline,
                          [work, staged, group = group_](const Status& status, int source) mutable {
                            if (status.ok()) staged.copy_back();
                            work->set_source(source);
                            work->complete(group->with_flight(status));
                          }};
  work->started();
  if (call.type == OpType::SEND)
    exchange->send(std::move(request));
  else
    exchange->receive(std::move(request));
  return work;
}

namespace {

void check_message(const char* op, const Tensors& tensors, int peer, int size) {
  check_one(op, tensors.size(), "tensor");
  check_tensors(op, tensors);
  if (peer != ExchangeRequest::kAnySource && (peer < 0 || peer >= size)) {
    invalid(op, "rank " + std::to_string(peer) + " is not in a group of " + std::to_string(size));
  }
}

}  // namespace

WorkPtr HpcoreBackend::send(Tensors& tensors, int to, int tag) {
  check_message("send", tensors, to, getSize());
  const Call call{"hpcore:send", OpType::SEND, c10d::kUnsetTimeout, true, tensors, tensors};
  return post(call, Staged(tensors, Staged::Use::kRead), to, tag);
}

WorkPtr HpcoreBackend::recv(Tensors& tensors, int from, int tag) {
  check_message("recv", tensors, from, getSize());
  const Call call{"hpcore:recv", OpType::RECV, c10d::kUnsetTimeout, true, tensors, tensors};
  return post(call, Staged(tensors, Staged::Use::kWrite), from, tag);
}

WorkPtr HpcoreBackend::recvAnysource(Tensors& tensors, int tag) {
  check_message("recv", tensors, ExchangeRequest::kAnySource, getSize());
  const Call call{
      "hpcore:recv_any_source", OpType::RECVANYSOURCE, c10d::kUnsetTimeout, true, tensors, tensors};
  return post(call, Staged(tensors, Staged::Use::kWrite), ExchangeRequest::kAnySource, tag);
}

}  // namespace hpcore::torch_binding
