// Who serves which call, and the life of both. The operations: composite_operations.cpp.
#include "torch/composite.hpp"

#include <torch/csrc/distributed/c10d/PrefixStore.hpp>

#include "torch/error.hpp"
#include "torch/group.hpp"
#include "torch/quiet_thread.hpp"
#include "torch/without_gil.hpp"

namespace hpcore::torch_binding {

CompositeBackend::CompositeBackend(Parts parts)
    : Backend(parts.facts.rank, parts.facts.size), parts_(std::move(parts)) {
  first_store_ = parts_.facts.store;
}

CompositeBackend::~CompositeBackend() { stop_watching(); }

BackendPtr CompositeBackend::accelerator_if_made() {
  const std::lock_guard lock(mutex_);
  return accelerator_;
}

c10d::Backend& CompositeBackend::accelerator() {
  if (const auto made = accelerator_if_made()) return *made;
  without_gil([this] {
    const std::lock_guard making(making_);
    if (accelerator_if_made()) return;
    BackendPtr made = parts_.make_accelerator(parts_.facts);
    if (!getGroupUid().empty()) made->setGroupUid(getGroupUid());
#if HPCORE_TORCH_MINOR < 14  // later ones start at 0, and warn
    made->setSequenceNumberForGroup();
#endif
    check_standing();
    const std::lock_guard lock(mutex_);
    accelerator_ = std::move(made);
    if (!parts_.revocation) return;
    parts_.revocation->attach(&doorbell_);
    if (!start_quiet_thread("hpcore-revoked", watcher_, [this] { watch(); })) {
      parts_.revocation->detach(&doorbell_);
      accelerator_ = nullptr;
      raise({Code::kSystem, "no thread could be started to watch the generation of group '" +
                                parts_.facts.name + "'"});
    }
  });
  return *accelerator_if_made();
}

void CompositeBackend::watch() {
  const auto revoked = [this] { return parts_.revocation->revoked(parts_.generation); };
  doorbell_.wait([&] { return stopping_.load() || revoked(); }, TimePoint::max());
  if (stopping_.load()) return;
  try {
    accelerator_if_made()->abort();
  } catch (const std::exception& error) {
    TORCH_WARN("hpcore: aborting the accelerator's backend of an ended generation failed: ",
               error.what());
  }
}

void CompositeBackend::stop_watching() {
  without_gil([this] {
    std::thread watcher;
    {
      const std::lock_guard lock(mutex_);
      ended_ = true;
      watcher = std::move(watcher_);
    }
    if (!watcher.joinable()) return;
    stopping_ = true;
    doorbell_.ring();
    watcher.join();
    parts_.revocation->detach(&doorbell_);
  });
}

void CompositeBackend::setTimeout(std::chrono::milliseconds timeout) {
  parts_.facts.timeout = timeout;
  parts_.cpu->setTimeout(timeout);
  if (const auto made = accelerator_if_made()) made->setTimeout(timeout);
}

c10d::ErrorType CompositeBackend::getError() {
  const auto own = parts_.cpu->getError();
  const auto made = accelerator_if_made();
  return own == c10d::ErrorType::SUCCESS && made ? made->getError() : own;
}

void CompositeBackend::abort() {
  stop_watching();
  parts_.cpu->abort();
  if (const auto made = accelerator_if_made()) made->abort();
}

void CompositeBackend::shutdown() {
  stop_watching();
  parts_.cpu->shutdown();
  if (const auto made = accelerator_if_made()) made->shutdown();
}

void CompositeBackend::setGroupUid(const std::string& uid) {
  Backend::setGroupUid(uid);
  parts_.cpu->setGroupUid(uid);
  if (const auto made = accelerator_if_made()) made->setGroupUid(uid);
}

BackendPtr CompositeBackend::split(const c10::intrusive_ptr<c10d::Store>& store,
                                   const std::vector<int>& ranks,
                                   const c10::intrusive_ptr<Options>& options) {
  Parts parts = parts_;
  parts.cpu = parts_.cpu->split(store, ranks, options);
  if (!parts.cpu) return nullptr;  // this rank is not in it
  parts.facts.store = c10::make_intrusive<c10d::PrefixStore>("accelerator/", store);
  parts.facts.rank = parts.cpu->getRank();
  parts.facts.size = parts.cpu->getSize();
  const auto made = parts.cpu->getBackendOptions();
  parts.facts.name = made->group_name;
  parts.facts.timeout = made->timeout;
  parts.facts.global_ranks.assign(made->global_ranks_in_group.begin(),
                                  made->global_ranks_in_group.end());
  return c10::make_intrusive<CompositeBackend>(std::move(parts));
}

void CompositeBackend::startCoalescing() {
  const std::lock_guard lock(mutex_);
  coalescing_ = true;
  coalescing_cpu_ = coalescing_accelerator_ = false;
}

CompositeBackend::WorkPtr CompositeBackend::endCoalescing() {
  bool cpu = false;
  bool accelerated = false;
  {
    const std::lock_guard lock(mutex_);
    cpu = coalescing_cpu_;
    accelerated = coalescing_accelerator_;
    coalescing_ = coalescing_cpu_ = coalescing_accelerator_ = false;
  }
  WorkPtr of_accelerator = accelerated ? accelerator().endCoalescing() : nullptr;
  if (!cpu && accelerated) return of_accelerator;
  if (!cpu) parts_.cpu->startCoalescing();  // an empty block is done at once
  WorkPtr of_cpu = parts_.cpu->endCoalescing();
  // One handle for both: what the accelerator got is in its queue, what is waited for is the CPU's.
  if (of_accelerator) of_accelerator->wait();
  return of_cpu;
}

// Backends differ in what they do after abort(); here every call is refused.
void CompositeBackend::check_standing() {
  if (parts_.revocation && parts_.revocation->revoked(parts_.generation)) {
    raise(generation_over(parts_.facts.name, parts_.generation));
  }
  const std::lock_guard lock(mutex_);
  if (ended_) raise(group_ended(parts_.facts.name));
}

c10d::Backend& CompositeBackend::of(bool accelerated) {
  check_standing();
  c10d::Backend& chosen = accelerated ? accelerator() : *parts_.cpu;
  const std::lock_guard lock(mutex_);
  bool& begun = accelerated ? coalescing_accelerator_ : coalescing_cpu_;
  if (coalescing_ && !begun) {
    begun = true;
    chosen.startCoalescing();
  }
  return chosen;
}

c10d::Backend& CompositeBackend::of(const at::Tensor& tensor) {
  return of(tensor.defined() && tensor.device().type() == parts_.device_type);
}

c10d::Backend& CompositeBackend::of(const Tensors& tensors) {
  return tensors.empty() ? of(false) : of(tensors.front());
}

}  // namespace hpcore::torch_binding
