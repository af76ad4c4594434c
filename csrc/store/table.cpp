// The hash-table half of Table. Every change ends in one store to a word that others can reach.
#include "store/table.hpp"

#include <cstring>

namespace hpcore::store {
namespace {

template <typename T>
char* bytes_after(T* entry) {
  return reinterpret_cast<char*>(const_cast<std::remove_const_t<T>*>(entry) + 1);
}

}  // namespace

uint64_t Table::hash_of(std::string_view key) {
  uint64_t hash = 0xcbf29ce484222325;  // FNV-1a, then mixed: the same in every process
  for (const char c : key) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  hash ^= hash >> 32;
  return hash * 0x9e3779b97f4a7c15;
}

std::atomic<uint64_t>& Table::bucket_of(uint64_t hash) const {
  return at<std::atomic<uint64_t>>(header().buckets)[hash & (header().bucket_count - 1)];
}

std::string_view Table::key_of(const Node& node) const {
  return {bytes_after(&node), node.key_size};
}

std::string_view Table::value_of(const Node& node) const {
  const auto* value = at<Value>(node.content.load(std::memory_order_acquire));
  return {bytes_after(value), value->length.load(std::memory_order_acquire)};
}

Node* Table::find(std::string_view key, Kind kind) const {
  const uint64_t hash = hash_of(key);
  for (uint64_t n = bucket_of(hash).load(std::memory_order_acquire); n != 0;
       n = at<Node>(n)->next.load()) {
    Node* node = at<Node>(n);
    if (node->hash == hash && node->kind == kind && key_of(*node) == key) return node;
  }
  return nullptr;
}

bool Table::contains(std::string_view key) const {
  if (find(key, Kind::kValue) != nullptr) return true;
  const Node* queue = find(key, Kind::kQueue);
  return queue != nullptr && queue->content.load() != 0;
}

Status Table::full(std::string_view key, uint64_t wanted_bytes) const {
  return {Code::kNoSpace,
          "the store is full: key '" + std::string(key) + "' needs " +
              std::to_string(wanted_bytes) + " bytes, " + std::to_string(free_bytes()) + " of " +
              std::to_string(size_bytes_) +
              " are free. Delete keys that are no longer needed, or make the store larger"};
}

uint64_t Table::new_value(std::string_view value, uint64_t capacity) {
  const uint64_t offset = allocate(sizeof(Value) + capacity);
  if (offset == 0) return 0;
  auto* block = at<Value>(offset);
  std::memcpy(bytes_after(block), value.data(), value.size());
  block->length.store(value.size(), std::memory_order_release);
  return offset;
}

// `content` is not reachable yet: it is given back when there is no room for the node.
Status Table::link_node(std::string_view key, Kind kind, uint64_t content) {
  pinned_ = content;
  const uint64_t offset = allocate(sizeof(Node) + key.size());
  pinned_ = 0;
  if (offset == 0) {
    release(content);
    return full(key, sizeof(Node) + key.size());
  }
  Node* node = at<Node>(offset);
  node->hash = hash_of(key);
  node->kind = kind;
  node->key_size = static_cast<uint32_t>(key.size());
  node->content.store(content, std::memory_order_relaxed);
  node->last = content;
  node->length = 1;
  std::memcpy(bytes_after(node), key.data(), key.size());
  auto& bucket = bucket_of(node->hash);
  node->next.store(bucket.load(), std::memory_order_relaxed);
  step();
  bucket.store(offset, std::memory_order_release);
  step();
  header().key_count += 1;
  return {};
}

Status Table::put(std::string_view key, std::string_view value) {
  const uint64_t fresh = new_value(value, value.size());
  if (fresh == 0) return full(key, sizeof(Value) + value.size());
  Node* node = find(key, Kind::kValue);
  if (node == nullptr) return link_node(key, Kind::kValue, fresh);
  step();
  const uint64_t old = node->content.exchange(fresh, std::memory_order_acq_rel);
  release(old);
  return {};
}

Status Table::append(std::string_view key, std::string_view value) {
  Node* node = find(key, Kind::kValue);
  if (node == nullptr) return put(key, value);
  auto* old = at<Value>(node->content.load());
  const uint64_t length = old->length.load();
  if (length + value.size() <= capacity_of(offset_of(old)) - sizeof(Value)) {
    std::memcpy(bytes_after(old) + length, value.data(), value.size());
    step();
    old->length.store(length + value.size(), std::memory_order_release);
    return {};
  }
  const uint64_t fresh = new_value(value_of(*node), 2 * (length + value.size()));
  if (fresh == 0) return full(key, 2 * (length + value.size()));
  auto* block = at<Value>(fresh);
  std::memcpy(bytes_after(block) + length, value.data(), value.size());
  block->length.store(length + value.size(), std::memory_order_release);
  step();
  node->content.store(fresh, std::memory_order_release);
  release(offset_of(old));
  return {};
}

Status Table::push(std::string_view key, std::string_view value) {
  const uint64_t offset = allocate(sizeof(Item) + value.size());
  if (offset == 0) return full(key, sizeof(Item) + value.size());
  auto* item = at<Item>(offset);
  item->next.store(0, std::memory_order_relaxed);
  item->length = value.size();
  std::memcpy(bytes_after(item), value.data(), value.size());
  Node* node = find(key, Kind::kQueue);
  if (node == nullptr) return link_node(key, Kind::kQueue, offset);
  step();
  if (node->content.load() == 0) {
    node->content.store(offset, std::memory_order_release);
  } else {
    at<Item>(node->last)->next.store(offset, std::memory_order_release);
  }
  step();
  node->last = offset;
  node->length += 1;
  return {};
}

std::string Table::pop(Node& node) {
  const uint64_t offset = node.content.load();
  const auto* item = at<Item>(offset);
  std::string value(bytes_after(item), item->length);
  step();
  node.content.store(item->next.load(), std::memory_order_release);
  step();
  node.length -= 1;
  release(offset);
  if (node.content.load() == 0) erase(std::string(key_of(node)), Kind::kQueue);
  return value;
}

bool Table::erase(std::string_view key, Kind kind) {
  Node* node = find(key, kind);
  if (node == nullptr) return false;
  std::atomic<uint64_t>* link = &bucket_of(node->hash);
  while (link->load() != offset_of(node)) link = &at<Node>(link->load())->next;
  step();
  link->store(node->next.load(), std::memory_order_release);
  step();
  header().key_count -= 1;
  for (uint64_t content = node->content.load(); content != 0;) {
    const uint64_t next = kind == Kind::kQueue ? at<Item>(content)->next.load() : 0;
    release(content);
    content = next;
  }
  release(offset_of(node));
  return true;
}

void Table::each(const std::function<void(const Node&, std::string_view)>& visit) const {
  for (uint64_t b = 0; b < header().bucket_count; ++b) {
    for (uint64_t n = bucket_of(b).load(); n != 0; n = at<Node>(n)->next.load()) {
      visit(*at<Node>(n), key_of(*at<Node>(n)));
    }
  }
}

}  // namespace hpcore::store
