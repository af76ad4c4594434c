#include "base/status.hpp"

#include <cstring>

namespace hpcore {

Status Status::system(const std::string& what, int error_number) {
  return {Code::kSystem, what + ": " + std::strerror(error_number) + " (errno " +
                             std::to_string(error_number) + ")"};
}

}  // namespace hpcore
