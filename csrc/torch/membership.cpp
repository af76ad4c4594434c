#include "torch/membership.hpp"

#include <c10/util/Exception.h>

#include <charconv>
#include <random>
#include <string_view>
#include <vector>

#include "torch/error.hpp"

namespace hpcore::torch_binding {
namespace {

constexpr std::string_view kKind = "hpcore";

bool read_number(std::string_view text, int64_t& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size();
}

}  // namespace

MemberHandle MemberHandle::fresh(int64_t stable_rank) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::random_device random;
  std::string identity;
  for (int i = 0; i < 16; ++i) identity += kDigits[random() % kDigits.size()];
  return {stable_rank, -1, identity};
}

MemberHandle MemberHandle::parse(const std::string& text) {
  std::vector<std::string_view> parts;
  std::string_view rest = text;
  for (;;) {
    const size_t colon = rest.find(':');
    parts.push_back(rest.substr(0, colon));
    if (colon == std::string_view::npos) break;
    rest.remove_prefix(colon + 1);
  }
  MemberHandle handle;
  if (parts.size() != 4 || parts[0] != kKind || !read_number(parts[1], handle.stable_rank) ||
      !read_number(parts[2], handle.uuid) || parts[3].empty()) {
    raise({Code::kInvalid, "reconfigure: '" + text +
                               "' is no handle of the hpcore backend. Pass what each member's "
                               "get_reconfigure_handle() gave"});
  }
  handle.identity = parts[3];
  return handle;
}

std::string MemberHandle::text() const {
  return std::string(kKind) + ":" + std::to_string(stable_rank) + ":" + std::to_string(uuid) + ":" +
         identity;
}

void AbortHooks::add(int64_t id, Hook hook) {
  const std::lock_guard lock(mutex_);
  hooks_[id] = std::move(hook);
}

void AbortHooks::remove(int64_t id) {
  Hook removed;  // destroyed outside the lock: it may wait for the GIL
  const std::lock_guard lock(mutex_);
  if (const auto found = hooks_.find(id); found != hooks_.end()) {
    removed = std::move(found->second);
    hooks_.erase(found);
  }
}

void AbortHooks::run() const {
  std::vector<Hook> hooks;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [id, hook] : hooks_) hooks.push_back(hook);
  }
  for (const Hook& hook : hooks) {
    try {
      hook();
    } catch (const std::exception& error) {
      TORCH_WARN("hpcore: an abort hook failed: ", error.what());
    }
  }
}

}  // namespace hpcore::torch_binding
