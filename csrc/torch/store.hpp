// Purpose: SharedStore as a c10d::Store.
// Threads: thread-safe; clone() shares the memory. Ownership: shares the SharedStore.
#pragma once

#include <torch/csrc/distributed/c10d/Store.hpp>

#include "store/shared_store.hpp"

namespace hpcore::torch_binding {

// `interrupt` ends waits early, for example when a generation is revoked; may be null.
c10::intrusive_ptr<c10d::Store> make_store(std::shared_ptr<SharedStore> store, std::string prefix,
                                           std::shared_ptr<Interrupt> interrupt,
                                           std::chrono::milliseconds timeout);

}  // namespace hpcore::torch_binding
