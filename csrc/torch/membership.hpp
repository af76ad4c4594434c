// Purpose: what torch 2.14 added to c10d::Backend: the handles by which members of a group find
// each other again when it is reconfigured, and the hooks that run before an abort. Threads:
// AbortHooks is thread-safe, MemberHandle a plain value. Ownership: hooks are owned, and run
// outside the lock.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <string>

namespace hpcore::torch_binding {

// "hpcore:<rank at creation>:<uuid of its last reconfigure, or -1>:<16 hex digits, its own>"
struct MemberHandle {
  int64_t stable_rank = 0;
  int64_t uuid = -1;
  std::string identity;

  static MemberHandle fresh(int64_t stable_rank);  // a random identity
  static MemberHandle parse(const std::string& text);
  [[nodiscard]] std::string text() const;
};

class AbortHooks {
 public:
  using Hook = std::function<void()>;

  void add(int64_t id, Hook hook);
  void remove(int64_t id);
  void run() const;  // a hook that throws is warned of, the next one runs

 private:
  mutable std::mutex mutex_;
  std::map<int64_t, Hook> hooks_;
};

}  // namespace hpcore::torch_binding
