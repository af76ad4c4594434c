// Purpose: refuses a slot that a segment does not have. Threads: any; raises, so with the GIL.
#pragma once

#include "bind/errors.hpp"
#include "roster/node_segment.hpp"

namespace hpcore::bind {

inline void require_slot(const roster::NodeSegment& segment, int slot) {
  if (!segment.has_slot(slot)) {
    check(Status(Code::kNotFound, "there is no slot " + std::to_string(slot) +
                                      ": the segment has " + std::to_string(segment.slots())));
  }
}

}  // namespace hpcore::bind
