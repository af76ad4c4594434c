// Purpose: how Python holds a reader of another process's memory, and what registers the readers of
// device memory. Call with the GIL held, Memory::read without it.
#pragma once

#include <pybind11/pybind11.h>

#include <atomic>
#include <memory>

#include "base/futex.hpp"
#include "transport/nccl_memory.hpp"
#include "transport/remote_memory.hpp"

namespace hpcore::bind {

// A reader with what it needs to stay alive, and a switch to end a read.
struct Memory {
  std::unique_ptr<transport::RegionMap> regions;  // of the other process
  std::shared_ptr<void> keeper;
  std::unique_ptr<transport::RemoteMemory> reader;
  std::atomic<bool> aborted{false};

  Status read(uint64_t offset, uint64_t bytes, const transport::RegionMap& into,
              TimePoint deadline) {
    if (offset > into.bytes() || bytes > into.bytes() - offset) {
      return {Code::kInvalid, "bytes " + std::to_string(offset) + " to " +
                                  std::to_string(offset + bytes) + " are outside of the " +
                                  std::to_string(into.bytes()) + " bytes that are exposed"};
    }
    uint64_t expected = offset;
    bool in_order = true;
    bool late = false;
    Status status = reader->stream(
        offset, bytes, into,
        [&] {
          late = late || Clock::now() >= deadline;
          return late || aborted.load();
        },
        [&](uint64_t at, uint64_t arrived) {
          in_order = in_order && at == expected;
          expected = at + arrived;
        });
    if (status.code() == Code::kAborted && late) {
      return {Code::kTimeout, "the read was not done in time"};
    }
    if (status.ok() && (!in_order || expected != offset + bytes)) {
      return {Code::kCorrupt, "the transport announced other bytes than it was asked for"};
    }
    return status;
  }
};

using NcclHandle = transport::NcclAccess;

void register_device_memory(pybind11::module_& module);  // after RemoteMemory is

}  // namespace hpcore::bind
