#include <pybind11/stl.h>

#include "bind/errors.hpp"
#include "bind/register.hpp"
#include "store/shared_store.hpp"

namespace hpcore::bind {
namespace {

namespace py = pybind11;
using Store = SharedStore;
using Handle = std::shared_ptr<SharedStore>;

TimePoint deadline_after(double timeout_s) {
  constexpr double kForever = 1e9;
  if (timeout_s >= kForever) return TimePoint::max();
  return Clock::now() +
         std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(timeout_s));
}

// Waits in slices, so that Ctrl-C reaches a thread that blocks in here. Call with the GIL held.
template <typename Operation>
auto in_slices(double timeout_s, Operation operation) {
  constexpr auto kSlice = std::chrono::milliseconds(200);
  const TimePoint deadline = deadline_after(timeout_s);
  for (;;) {
    const TimePoint slice = std::min(deadline, Clock::now() + kSlice);
    auto result = [&] {
      py::gil_scoped_release release;
      return operation(StoreWait{slice, nullptr});
    }();
    const Status status = [&] {
      if constexpr (std::is_same_v<decltype(result), Status>)
        return result;
      else
        return result.status();
    }();
    if (status.code() != Code::kTimeout || slice == deadline) return result;
    if (PyErr_CheckSignals() != 0) throw py::error_already_set();
  }
}

template <typename Operation>
auto without_gil(Operation operation) {
  py::gil_scoped_release release;
  return operation();
}

void register_waits(py::class_<Store, Handle>& type) {
  type.def(
      "get",
      [](Store& self, std::string_view key, double timeout_s) {
        return py::bytes(
            check(in_slices(timeout_s, [&](StoreWait wait) { return self.get(key, wait); })));
      },
      py::arg("key"), py::arg("timeout_s") = 300.0, "The value of key; blocks until it is there.");
  type.def(
      "wait",
      [](Store& self, const std::vector<std::string>& keys, double timeout_s) {
        check(in_slices(timeout_s, [&](StoreWait wait) { return self.wait(keys, wait); }));
      },
      py::arg("keys"), py::arg("timeout_s") = 300.0, "Blocks until all keys are there.");
  type.def(
      "multi_get",
      [](Store& self, const std::vector<std::string>& keys, double timeout_s) {
        std::vector<py::bytes> values;
        for (auto& value : check(in_slices(
                 timeout_s, [&](StoreWait wait) { return self.multi_get(keys, wait); }))) {
          values.emplace_back(value);
        }
        return values;
      },
      py::arg("keys"), py::arg("timeout_s") = 300.0,
      "The values of keys; blocks until all are there.");
  type.def(
      "queue_pop",
      [](Store& self, std::string_view key, bool block, double timeout_s) {
        return py::bytes(check(in_slices(
            timeout_s, [&](StoreWait wait) { return self.queue_pop(key, block, wait); })));
      },
      py::arg("key"), py::arg("block") = true, py::arg("timeout_s") = 300.0,
      "The oldest item of the queue; blocks until there is one, or raises NotFound with "
      "block=False.");
}

void register_changes(py::class_<Store, Handle>& type) {
  type.def(
      "set",
      [](Store& self, std::string_view key, std::string_view value) {
        check(without_gil([&] { return self.set(key, value); }));
      },
      py::arg("key"), py::arg("value"));
  type.def(
      "add",
      [](Store& self, std::string_view key, int64_t delta) {
        return check(without_gil([&] { return self.add(key, delta); }));
      },
      py::arg("key"), py::arg("delta"), "Adds to a counter kept as decimal text; returns the sum.");
  type.def(
      "compare_set",
      [](Store& self, std::string_view key, std::string_view expected, std::string_view desired) {
        return py::bytes(
            check(without_gil([&] { return self.compare_set(key, expected, desired); })));
      },
      py::arg("key"), py::arg("expected"), py::arg("desired"),
      "Sets desired if the value is expected (or the key is missing and expected is empty); "
      "returns the value after.");
  type.def(
      "delete",
      [](Store& self, std::string_view key) {
        return check(without_gil([&] { return self.remove(key); }));
      },
      py::arg("key"), "True if the key was there.");
  type.def(
      "append",
      [](Store& self, std::string_view key, std::string_view value) {
        check(without_gil([&] { return self.append(key, value); }));
      },
      py::arg("key"), py::arg("value"));
  type.def(
      "multi_set",
      [](Store& self, const std::vector<std::string>& keys,
         const std::vector<std::string>& values) {
        check(without_gil([&] { return self.multi_set(keys, values); }));
      },
      py::arg("keys"), py::arg("values"));
  type.def(
      "queue_push",
      [](Store& self, std::string_view key, std::string_view value) {
        check(without_gil([&] { return self.queue_push(key, value); }));
      },
      py::arg("key"), py::arg("value"));
}

void register_looks(py::class_<Store, Handle>& type) {
  type.def(
      "check",
      [](Store& self, const std::vector<std::string>& keys) {
        return check(without_gil([&] { return self.check(keys); }));
      },
      py::arg("keys"), "True if all keys are there. Does not wait.");
  type.def(
      "queue_len",
      [](Store& self, std::string_view key) {
        return check(without_gil([&] { return self.queue_length(key); }));
      },
      py::arg("key"));
  type.def("num_keys",
           [](Store& self) { return check(without_gil([&] { return self.key_count(); })); });
  type.def("keys", [](Store& self) { return check(without_gil([&] { return self.keys(); })); });
  type.def("free_bytes",
           [](Store& self) { return check(without_gil([&] { return self.free_bytes(); })); });
  type.def_property_readonly("fd", &Store::fd, "Its own memfd; -1 in the memory of a segment.");
  type.def_property_readonly("size_bytes", &Store::size_bytes);
  type.def("close", &Store::close, "Wakes this process's waiters: they raise Aborted.");
  type.def_property_readonly(
      "native_handle",
      [](const Handle& self) {
        return py::capsule(new Handle(self), "std::shared_ptr<hpcore::SharedStore>",
                           [](void* handle) { delete static_cast<Handle*>(handle); });
      },
      "For _c10d.");
  type.def("_crash_after", &Store::crash_after, py::arg("steps"),
           "Tests only: kills this process at the n-th step of a change.");
}

}  // namespace

void register_store(py::module_& module) {
  py::class_<Store, Handle> type(
      module, "SharedStore", "A key/value store shared by the processes of a node. Thread-safe.");
  type.def_static(
      "create",
      [](size_t size_bytes, const std::string& name) {
        return check(Store::create(size_bytes, name));
      },
      py::arg("size_bytes") = size_t{64} << 20, py::arg("name") = "hpcore-store",
      "A store in a memfd of its own, which /proc shows under that name.");
  type.def_static(
      "open", [](int fd) { return check(Store::open(fd)); }, py::arg("fd"),
      "The store in an inherited descriptor, which is duplicated.");
  type.def_static(
      "open_path", [](const std::string& path) { return check(Store::open(path)); },
      py::arg("path"), "The store in another process's descriptor: /proc/<pid>/fd/<fd>.");
  register_changes(type);
  register_waits(type);
  register_looks(type);
}

}  // namespace hpcore::bind
