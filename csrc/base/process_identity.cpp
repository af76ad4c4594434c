#include "base/process_identity.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

namespace hpcore {
namespace {

enum class Look { kRuns, kEnded, kUnknown };

// /proc/<pid>/stat, proc(5): the name in parentheses may hold anything; the state follows it, the
// start time is the 20th field from there.
Look look(int pid, uint64_t* start_ticks) {
  char path[32];
  std::snprintf(path, sizeof(path), "/proc/%d/stat", pid);
  const int fd = ::open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return errno == ENOENT ? Look::kEnded : Look::kUnknown;
  char text[1024];
  const ssize_t length = ::read(fd, text, sizeof(text) - 1);
  const int error = errno;
  ::close(fd);
  if (length < 0) return error == ESRCH ? Look::kEnded : Look::kUnknown;
  text[length] = 0;
  const char* at = std::strrchr(text, ')');
  if (at == nullptr || at[1] == 0) return Look::kUnknown;
  const char state = at[2];
  at += 2;
  for (int field = 0; field < 19; ++field) {
    at = std::strchr(at + 1, ' ');
    if (at == nullptr) return Look::kUnknown;
  }
  unsigned long long ticks = 0;
  if (std::sscanf(at, "%llu", &ticks) != 1) return Look::kUnknown;
  *start_ticks = ticks;
  return state == 'Z' || state == 'X' || state == 'x' ? Look::kEnded : Look::kRuns;
}

}  // namespace

ProcessIdentity this_process() {
  ProcessIdentity own{static_cast<int>(getpid()), 0};
  if (look(own.pid, &own.start_ticks) != Look::kRuns) own.pid = 0;  // nobody can ask for it
  return own;
}

bool process_runs(const ProcessIdentity& process) {
  uint64_t start_ticks = 0;
  const Look seen = look(process.pid, &start_ticks);
  return seen == Look::kUnknown || (seen == Look::kRuns && start_ticks == process.start_ticks);
}

}  // namespace hpcore
