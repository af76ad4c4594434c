// Python's DatasetFile: a mapped .hpd file, what it holds, whether it is sound.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bind/dataset_arguments.hpp"
#include "bind/errors.hpp"
#include "bind/register.hpp"
#include "dataset/file.hpp"

namespace py = pybind11;

namespace hpcore::bind {

using dataset::DatasetFile;
using dataset::FieldKind;
using dataset::FieldRecord;
using dataset::Range;

namespace {

const char* kind_name(FieldKind kind) {
  switch (kind) {
    case FieldKind::kTokens:
      return "tokens";
    case FieldKind::kFixed:
      return "fixed";
    case FieldKind::kVarying:
      break;
  }
  return "varying";
}

py::dict describe_field(const FieldRecord& f) {
  py::dict info;
  info["name"] = dataset::field_name(f);
  info["kind"] = kind_name(f.kind);
  info["dtype"] = std::string(dataset::dtype_name(f.dtype));
  info["shape"] =
      py::tuple(py::cast(std::vector<uint64_t>(f.shape.begin(), f.shape.begin() + f.dimensions)));
  info["rows"] = f.rows;
  info["row_bytes"] = f.row_bytes;
  info["data_offset"] = f.data_offset;
  info["data_bytes"] = f.data_bytes;
  info["documents"] = f.documents;
  info["vocabulary"] = f.vocabulary;
  info["separator"] =
      f.separator == 0 ? py::object(py::none()) : py::object(py::int_(f.separator - 1));
  return info;
}

py::tuple range_of(const Result<Range>& range) {
  check(range.status());
  return py::make_tuple(range.value().begin, range.value().end);
}

}  // namespace

py::dict describe(const dataset::Head& head) {
  const dataset::Superblock& s = head.superblock;
  py::dict info;
  info["uuid"] = py::bytes(reinterpret_cast<const char*>(s.uuid.data()), s.uuid.size());
  info["digest"] = py::bytes(reinterpret_cast<const char*>(s.digest.data()), s.digest.size());
  info["version"] = s.version;
  info["metadata"] = py::bytes(head.metadata);
  info["file_bytes"] = s.file_bytes;
  info["blocks"] = s.blocks;
  info["block_bytes"] = s.block_bytes;
  py::list fields;
  for (const FieldRecord& field : head.fields) fields.append(describe_field(field));
  info["fields"] = fields;
  return info;
}

void register_dataset_file(py::module_& module) {
  using Class = py::class_<DatasetFile, std::shared_ptr<DatasetFile>>;
  Class(module, "DatasetFile", "A mapped .hpd file. Thread-safe.")
      .def(py::init([](const std::string& path, bool verify) {
             return check(DatasetFile::open(path, verify));
           }),
           py::arg("path"), py::arg("verify") = true)
      .def_property_readonly("path", &DatasetFile::path)
      .def("info", [](const DatasetFile& self) { return describe(self.head()); })
      .def(
          "find_field",
          [](const DatasetFile& self, const std::string& name) {
            return check(self.find_field(name));
          },
          py::arg("name"), "Number of a field. NotFound names those there are.")
      .def(
          "row_range",
          [](const DatasetFile& self, int64_t field, int64_t row) {
            return range_of(self.row_range(field_index(self, field), unsigned_of(row, "the row")));
          },
          py::arg("field"), py::arg("row"),
          "Bytes (begin, end) of a varying row in its field's data.")
      .def(
          "document",
          [](const DatasetFile& self, int64_t field, int64_t index) {
            return range_of(
                self.document(field_index(self, field), unsigned_of(index, "the document")));
          },
          py::arg("field"), py::arg("index"), "Tokens (begin, end) of a document.")
      .def(
          "document_of",
          [](const DatasetFile& self, int64_t field, int64_t token) {
            return check(
                self.document_of(field_index(self, field), unsigned_of(token, "the token")));
          },
          py::arg("field"), py::arg("token"), "The document that holds a token.")
      .def(
          "documents",
          [](const DatasetFile& self, int64_t field) {
            const auto documents = self.documents(field_index(self, field));
            return std::vector<uint64_t>(documents.begin(), documents.end());
          },
          py::arg("field") = 0)
      .def("verify_all", [](const DatasetFile& self) {
        Status status;
        {
          const py::gil_scoped_release release;
          status = self.verify_all();
        }
        check(status);
      });
}

}  // namespace hpcore::bind
