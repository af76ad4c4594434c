#include "torch/store.hpp"

#include "torch/error.hpp"

namespace hpcore::torch_binding {
namespace {

using Bytes = std::vector<uint8_t>;

std::string_view view(const Bytes& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}
Bytes bytes(const std::string& text) { return {text.begin(), text.end()}; }

class HpcoreStore final : public c10d::Store {
 public:
  HpcoreStore(std::shared_ptr<SharedStore> store, std::string prefix,
              std::shared_ptr<Interrupt> interrupt, std::chrono::milliseconds timeout)
      : Store(timeout),
        store_(std::move(store)),
        prefix_(std::move(prefix)),
        interrupt_(std::move(interrupt)) {}

  using Store::compareSet;
  using Store::set;

  c10::intrusive_ptr<Store> clone() override {
    return make_store(store_, prefix_, interrupt_, timeout_);
  }
  void set(const std::string& key, const Bytes& value) override {
    check_status(store_->set(full(key), view(value)));
  }
  Bytes compareSet(const std::string& key, const Bytes& expected, const Bytes& desired) override {
    return bytes(
        torch_binding::check(store_->compare_set(full(key), view(expected), view(desired))));
  }
  Bytes get(const std::string& key) override {
    return bytes(torch_binding::check(store_->get(full(key), until(timeout_))));
  }
  int64_t add(const std::string& key, int64_t value) override {
    return torch_binding::check(store_->add(full(key), value));
  }
  bool deleteKey(const std::string& key) override {
    return torch_binding::check(store_->remove(full(key)));
  }
  bool check(const std::vector<std::string>& keys) override {
    return torch_binding::check(store_->check(full(keys)));
  }
  int64_t getNumKeys() override { return static_cast<int64_t>(listKeys().size()); }
  void wait(const std::vector<std::string>& keys) override { wait(keys, timeout_); }
  void wait(const std::vector<std::string>& keys,
            const std::chrono::milliseconds& timeout) override {
    check_status(store_->wait(full(keys), until(timeout)));
  }
  void append(const std::string& key, const Bytes& value) override {
    check_status(store_->append(full(key), view(value)));
  }
  std::vector<Bytes> multiGet(const std::vector<std::string>& keys) override {
    std::vector<Bytes> values;
    for (const auto& value : torch_binding::check(store_->multi_get(full(keys), until(timeout_)))) {
      values.push_back(bytes(value));
    }
    return values;
  }
  void multiSet(const std::vector<std::string>& keys, const std::vector<Bytes>& values) override {
    std::vector<std::string> texts;
    for (const auto& value : values) texts.emplace_back(view(value));
    check_status(store_->multi_set(full(keys), texts));
  }
  bool hasExtendedApi() const override { return true; }
  void queuePush(const std::string& key, const Bytes& value) override {
    check_status(store_->queue_push(full(key), view(value)));
  }
  Bytes queuePop(const std::string& key, bool block) override {
    const auto item = store_->queue_pop(full(key), block, until(timeout_));
    if (item.status().code() == Code::kNotFound) {  // the class that torch documents
      C10_THROW_ERROR(DistQueueEmptyError, item.status().message());
    }
    return bytes(torch_binding::check(item));
  }
  int64_t queueLen(const std::string& key) override {
    return torch_binding::check(store_->queue_length(full(key)));
  }
  std::vector<std::string> listKeys() override {
    std::vector<std::string> own;
    for (const auto& key : torch_binding::check(store_->keys())) {
      if (key.starts_with(prefix_)) own.push_back(key.substr(prefix_.size()));
    }
    return own;
  }

 private:
  static void check_status(const Status& status) { torch_binding::check(status); }
  [[nodiscard]] std::string full(const std::string& key) const { return prefix_ + key; }
  [[nodiscard]] std::vector<std::string> full(const std::vector<std::string>& keys) const {
    std::vector<std::string> all;
    for (const auto& key : keys) all.push_back(full(key));
    return all;
  }
  // c10d: a timeout of zero means none.
  [[nodiscard]] StoreWait until(std::chrono::milliseconds timeout) const {
    constexpr std::chrono::milliseconds kLongest = std::chrono::hours(24 * 365);  // no overflow
    const bool forever = timeout == kNoTimeout || timeout > kLongest;
    return {forever ? TimePoint::max() : Clock::now() + timeout, interrupt_.get()};
  }

  std::shared_ptr<SharedStore> store_;
  std::string prefix_;
  std::shared_ptr<Interrupt> interrupt_;
};

}  // namespace

c10::intrusive_ptr<c10d::Store> make_store(std::shared_ptr<SharedStore> store, std::string prefix,
                                           std::shared_ptr<Interrupt> interrupt,
                                           std::chrono::milliseconds timeout) {
  return c10::make_intrusive<HpcoreStore>(std::move(store), std::move(prefix), std::move(interrupt),
                                          timeout);
}

}  // namespace hpcore::torch_binding
