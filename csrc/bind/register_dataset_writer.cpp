// Python's DatasetWriter.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>

#include "bind/dataset_arguments.hpp"
#include "bind/errors.hpp"
#include "bind/register.hpp"
#include "dataset/writer.hpp"

namespace py = pybind11;

namespace hpcore::bind {
namespace {

using dataset::DatasetWriter;
using dataset::FieldKind;
using dataset::FieldRecord;
using dataset::Head;

FieldKind kind_of(const std::string& kind) {
  if (kind == "tokens") return FieldKind::kTokens;
  if (kind == "fixed") return FieldKind::kFixed;
  if (kind == "varying") return FieldKind::kVarying;
  check(Status(Code::kInvalid, "a field is tokens, fixed or varying, not " + kind));
  return FieldKind::kTokens;
}

FieldRecord record_of(const py::dict& spec) {
  FieldRecord record;
  const std::string name = spec["name"].cast<std::string>();
  if (name.empty() || name.size() >= record.name.size() ||
      name.find(char{0}) != std::string::npos) {
    check(Status(Code::kInvalid, "a field's name has 1 to 63 bytes, none of them zero: " + name));
  }
  std::copy(name.begin(), name.end(), record.name.begin());
  const std::string dtype = spec["dtype"].cast<std::string>();
  for (const dataset::DtypeFacts& facts : dataset::kDtypes)
    if (facts.name == dtype) record.dtype = facts.dtype;
  if (dataset::dtype_bytes(record.dtype) == 0)
    check(Status(Code::kInvalid, "field " + name + ": dtype " + dtype + " is not known"));
  record.kind = kind_of(spec["kind"].cast<std::string>());
  const auto shape = spec["shape"].cast<std::vector<int64_t>>();
  if (shape.size() > record.shape.size()) {
    check(Status(Code::kInvalid, "field " + name + " has " + std::to_string(shape.size()) +
                                     " dimensions, more than 8"));
  }
  record.dimensions = static_cast<uint32_t>(shape.size());
  for (size_t i = 0; i < shape.size(); ++i) record.shape[i] = unsigned_of(shape[i], "a dimension");
  record.vocabulary = unsigned_of(spec["vocabulary"].cast<int64_t>(), "the vocabulary");
  if (!spec["separator"].is_none())
    record.separator = unsigned_of(spec["separator"].cast<int64_t>(), "the separator") + 1;
  return record;
}

// The bytes of any contiguous buffer.
std::pair<const void*, size_t> bytes_of(const Py_buffer& view) {
  return {view.buf, static_cast<size_t>(view.len)};
}

class BufferView {
 public:
  explicit BufferView(const py::object& data) {
    if (PyObject_GetBuffer(data.ptr(), &view_, PyBUF_SIMPLE) != 0) throw py::error_already_set();
  }
  ~BufferView() { PyBuffer_Release(&view_); }
  BufferView(const BufferView&) = delete;
  BufferView& operator=(const BufferView&) = delete;
  [[nodiscard]] const Py_buffer& view() const { return view_; }

 private:
  Py_buffer view_;
};

uint64_t field_number(int64_t field) { return unsigned_of(field, "the field's number"); }

void append(DatasetWriter& self, int64_t field, const py::object& data) {
  const BufferView buffer(data);
  const auto [at, bytes] = bytes_of(buffer.view());
  Status status;
  {
    const py::gil_scoped_release release;
    status = self.append(field_number(field), at, bytes);
  }
  check(status);
}

void end_rows(DatasetWriter& self, int64_t field, const py::object& lengths) {
  const BufferView buffer(lengths);
  const auto [at, bytes] = bytes_of(buffer.view());
  if (bytes % sizeof(uint64_t) != 0) check(Status(Code::kInvalid, "lengths must be of uint64"));
  check(self.end_rows(field_number(field),
                      {static_cast<const uint64_t*>(at), bytes / sizeof(uint64_t)}));
}

}  // namespace

void register_dataset_writer(py::module_& module) {
  py::class_<DatasetWriter>(module, "DatasetWriter", "Writes a .hpd file. One thread.")
      .def(py::init([](const std::string& path, const std::vector<py::dict>& fields,
                       const std::string& metadata) {
             std::vector<FieldRecord> records;
             for (const py::dict& field : fields) records.push_back(record_of(field));
             auto writer = std::make_unique<DatasetWriter>(path, records, metadata);
             check(writer->open());
             return writer;
           }),
           py::arg("path"), py::arg("fields"), py::arg("metadata") = "",
           "Takes the lock of PATH.building; InvalidArgument while another process has it.")
      .def_property_readonly(
          "resumed",
          [](const DatasetWriter& self) -> py::object {
            if (!self.resumed().has_value()) return py::none();
            return py::bytes(*self.resumed());
          },
          "Note of the checkpoint that a killed build of the same fields left, or None.")
      .def("restart", [](DatasetWriter& self) { check(self.restart()); })
      .def("append", &append, py::arg("field"), py::arg("data"),
           "Bytes of a field's data: any contiguous buffer.")
      .def("end_rows", &end_rows, py::arg("field"), py::arg("lengths"),
           "Lengths (a buffer of uint64) of the documents, in tokens, or varying rows, in items.")
      .def(
          "checkpoint",
          [](DatasetWriter& self, const py::bytes& note) {
            const std::string text = note;
            Status status;
            {
              const py::gil_scoped_release release;
              status = self.checkpoint(text);
            }
            check(status);
          },
          py::arg("note"), "From here a killed build goes on.")
      .def("finish",
           [](DatasetWriter& self) {
             Result<Head> result = Status(Code::kInvalid, "");
             {
               const py::gil_scoped_release release;
               result = self.finish();
             }
             return describe(check(std::move(result)));
           })
      .def("keep", &DatasetWriter::keep, "Leaves the folder for a later build to go on.")
      .def("give_up", &DatasetWriter::give_up, "Removes what was built.");
}

}  // namespace hpcore::bind
