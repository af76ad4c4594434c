#include "bind/errors.hpp"

namespace hpcore::bind {
namespace {

const char* exception_name(Code code) {
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

}  // namespace

void check(const Status& status) {
  if (status.ok()) return;
  const pybind11::object type =
      pybind11::module_::import("hpcore.errors").attr(exception_name(status.code()));
  PyErr_SetString(type.ptr(), status.message().c_str());
  throw pybind11::error_already_set();
}

}  // namespace hpcore::bind
