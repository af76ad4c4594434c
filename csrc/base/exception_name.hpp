// Purpose: the class of hpcore.errors that belongs to a Code, for the two bindings (bind/, torch/).
// Threads: a pure function. Ownership: the names are literals.
#pragma once

#include "base/status.hpp"

namespace hpcore {

inline const char* exception_name(Code code) {
  switch (code) {
    case Code::kRevoked:
      return "RosterChanged";
    case Code::kTimeout:
      return "DeadlineExceeded";
    case Code::kAborted:
      return "Aborted";
    case Code::kMismatch:
      return "MismatchError";
    case Code::kInvalid:
      return "InvalidArgument";
    case Code::kNotFound:
      return "NotFound";
    case Code::kCorrupt:
      return "CorruptData";
    case Code::kNoSpace:
      return "OutOfSpace";
    case Code::kPeerDead:
      return "PeerDead";
    case Code::kUnsupported:
      return "Unsupported";
    case Code::kOk:
    case Code::kSystem:
      break;
  }
  return "SystemCallError";
}

}  // namespace hpcore
