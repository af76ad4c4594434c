#include "torch/flight_recorder.hpp"

#include <algorithm>
#include <cstdio>
#include <sstream>

namespace hpcore::torch_binding {
namespace {

int64_t wall_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

FlightRecorder::Shape shape_of(const std::vector<at::Tensor>& tensors) {
  FlightRecorder::Shape shape;
  if (tensors.empty() || !tensors[0].defined()) return shape;
  const at::Tensor& tensor = tensors[0];
  shape.dtype = tensor.scalar_type();
  shape.dims = static_cast<uint8_t>(std::min<int64_t>(tensor.dim(), FlightRecorder::kMaxDims));
  for (uint8_t i = 0; i < shape.dims; ++i) shape.sizes[i] = tensor.size(i);
  return shape;
}

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    if (static_cast<unsigned char>(c) < 0x20) {
      char code[8];
      std::snprintf(code, sizeof(code), "\\u%04x", c);
      out += code;
    } else {
      out += c;
    }
  }
  return out + "\"";
}

std::string list_of(const FlightRecorder::Shape& shape) {
  std::string out = "[";
  for (uint8_t i = 0; i < shape.dims; ++i) {
    out += (i == 0 ? "" : ", ") + std::to_string(shape.sizes[i]);
  }
  return out + "]";
}

std::string sizes_json(const FlightRecorder::Shape& shape, uint32_t tensors) {
  return tensors == 0 ? "[]" : "[" + list_of(shape) + "]";
}

std::string dtypes_json(const FlightRecorder::Shape& shape, uint32_t tensors) {
  return tensors == 0 ? "[]" : "[" + quoted(c10::toString(shape.dtype)) + "]";
}

std::string ranks_text(const std::vector<int64_t>& ranks) {
  std::string out = "[";
  for (size_t i = 0; i < ranks.size(); ++i) out += (i == 0 ? "" : ", ") + std::to_string(ranks[i]);
  return out + "]";
}

}  // namespace

FlightRecorder::GroupPtr FlightRecorder::new_group(std::string name, std::vector<int64_t> ranks) {
  const std::lock_guard lock(mutex_);
  return std::make_shared<const Group>(Group{next_group_++, std::move(name), std::move(ranks)});
}

uint64_t FlightRecorder::begin(GroupPtr group, const Operation& operation,
                               const std::vector<at::Tensor>& inputs,
                               const std::vector<at::Tensor>& outputs) {
  if (capacity_ == 0) return 0;
  Entry entry;
  entry.group = std::move(group);
  entry.operation = operation;
  entry.created_ns = wall_ns();
  entry.input = shape_of(inputs);
  entry.output = shape_of(outputs);
  entry.inputs = static_cast<uint32_t>(inputs.size());
  entry.outputs = static_cast<uint32_t>(outputs.size());
  const std::lock_guard lock(mutex_);
  entry.id = next_id_++;
  if (entries_.size() < capacity_)
    entries_.push_back(entry);
  else
    entries_[(entry.id - 1) % capacity_] = entry;
  return entry.id;
}

FlightRecorder::Entry* FlightRecorder::find(uint64_t id) {
  if (entries_.empty() || id == 0) return nullptr;
  Entry& entry = entries_[(id - 1) % capacity_];
  return entry.id == id ? &entry : nullptr;
}

void FlightRecorder::started(uint64_t id) {
  const int64_t now = wall_ns();
  const std::lock_guard lock(mutex_);
  Entry* entry = find(id);
  if (entry == nullptr || entry->state != State::kScheduled) return;
  entry->state = State::kStarted;
  entry->started_ns = now;
}

void FlightRecorder::ended(uint64_t id, bool well) {
  const int64_t now = wall_ns();
  const std::lock_guard lock(mutex_);
  Entry* entry = find(id);
  if (entry == nullptr) return;
  entry->state = well ? State::kCompleted : State::kFailed;
  entry->ended_ns = now;
}

std::vector<FlightRecorder::Entry> FlightRecorder::ordered() const {
  std::vector<Entry> all;
  for (const Entry& entry : entries_) {
    if (entry.id != 0) all.push_back(entry);
  }
  std::sort(all.begin(), all.end(), [](const Entry& a, const Entry& b) { return a.id < b.id; });
  return all;
}

std::string FlightRecorder::in_flight(size_t most) const {
  const std::lock_guard lock(mutex_);
  const int64_t now = wall_ns();
  std::ostringstream out;
  size_t count = 0;
  for (const Entry& entry : ordered()) {
    if (entry.state != State::kScheduled && entry.state != State::kStarted) continue;
    if (++count > most) continue;
    out << (count == 1 ? "" : "; ") << entry.operation.title << " #" << entry.operation.sequence
        << " of group '" << entry.group->name << "'";
    if (entry.inputs != 0) {
      out << " " << c10::toString(entry.input.dtype) << list_of(entry.input);
      if (entry.inputs > 1) out << " and " << entry.inputs - 1 << " more";
    }
    out << (entry.state == State::kStarted ? ", running for " : ", queued for ")
        << static_cast<double>(now - entry.created_ns) / 1e9 << " s";
  }
  if (count > most) out << "; and " << count - most << " more";
  return out.str();
}

std::string FlightRecorder::entry_json(const Entry& entry) {
  static constexpr const char* kStates[] = {"scheduled", "started", "completed", "failed"};
  const uint64_t sequence = entry.operation.sequence;
  const bool p2p = entry.operation.is_p2p;
  const double lasted_ms =
      entry.ended_ns == 0 ? 0.0 : static_cast<double>(entry.ended_ns - entry.created_ns) / 1e6;
  std::ostringstream out;
  out << R"({"record_id": )" << entry.id - 1 << R"(, "pg_id": )" << entry.group->id
      << R"(, "process_group": [)" << quoted(entry.group->name)
      << R"(, "hpcore"], "collective_seq_id": )" << (p2p ? 0 : sequence) << R"(, "p2p_seq_id": )"
      << (p2p ? sequence : 0) << R"(, "op_id": )" << sequence << R"(, "profiling_name": )"
      << quoted(entry.operation.title) << R"(, "time_created_ns": )" << entry.created_ns
      << R"(, "time_discovered_started_ns": )" << entry.started_ns
      << R"(, "time_discovered_completed_ns": )" << entry.ended_ns << R"(, "duration_ms": )"
      << lasted_ms << R"(, "input_sizes": )" << sizes_json(entry.input, entry.inputs)
      << R"(, "input_dtypes": )" << dtypes_json(entry.input, entry.inputs)
      << R"(, "output_sizes": )" << sizes_json(entry.output, entry.outputs)
      << R"(, "output_dtypes": )" << dtypes_json(entry.output, entry.outputs) << R"(, "state": )"
      << quoted(kStates[static_cast<int>(entry.state)]) << R"(, "timeout_ms": )"
      << entry.operation.timeout.count() << R"(, "is_p2p": )" << (p2p ? "true" : "false")
      << R"(, "retired": )" << (entry.ended_ns != 0 ? "true" : "false") << "}";
  return out.str();
}

std::string FlightRecorder::groups_json(const std::vector<Entry>& entries) {
  std::map<int, GroupPtr> groups;
  for (const Entry& entry : entries) groups[entry.group->id] = entry.group;
  std::ostringstream out;
  for (const auto& [id, group] : groups) {
    out << (out.tellp() == 0 ? "" : ", ") << quoted(std::to_string(id)) << R"(: {"name": )"
        << quoted(group->name) << R"(, "desc": "hpcore", "ranks": )"
        << quoted(ranks_text(group->ranks)) << "}";
  }
  return out.str();
}

std::string FlightRecorder::status_json(const std::vector<Entry>& entries) {
  struct Last {
    int64_t enqueued = -1, started = -1, completed = -1;
  };
  std::map<int, Last> status;
  for (const Entry& entry : entries) {
    Last& last = status[entry.group->id];
    last.enqueued = static_cast<int64_t>(entry.operation.sequence);
    if (entry.started_ns != 0) last.started = last.enqueued;
    if (entry.state == State::kCompleted) last.completed = last.enqueued;
  }
  std::ostringstream out;
  for (const auto& [group, last] : status) {
    out << (out.tellp() == 0 ? "" : ", ") << quoted(std::to_string(group))
        << R"(: {"last_enqueued_collective": ")" << last.enqueued
        << R"(", "last_started_collective": ")" << last.started
        << R"(", "last_completed_collective": ")" << last.completed << R"("})";
  }
  return out.str();
}

std::string FlightRecorder::json() const {
  const std::lock_guard lock(mutex_);
  const std::vector<Entry> all = ordered();
  std::string entries;
  for (const Entry& entry : all) entries += (entries.empty() ? "" : ", ") + entry_json(entry);
  return R"({"version": "2.10", "comm_lib_version": "hpcore", "pg_config": {)" + groups_json(all) +
         R"(}, "pg_status": {)" + status_json(all) + R"(}, "entries": [)" + entries + "]}";
}

std::string FlightRecorder::dump(int rank) const {
  if (dump_prefix_.empty()) return {};
  const std::string path = dump_prefix_ + std::to_string(rank);
  const std::string fresh = path + ".new";  // a reader never sees half a file
  std::FILE* file = std::fopen(fresh.c_str(), "we");
  if (file == nullptr) return {};
  const std::string text = json();
  const bool written = std::fwrite(text.data(), 1, text.size(), file) == text.size();
  if (std::fclose(file) != 0 || !written || std::rename(fresh.c_str(), path.c_str()) != 0) {
    std::remove(fresh.c_str());
    return {};
  }
  return path;
}

}  // namespace hpcore::torch_binding
