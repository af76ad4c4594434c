# _c10d: the only user of libtorch. Built against the torch that is installed, with torch's own pybind11: another
# version of pybind11 would not see torch's classes.
execute_process(COMMAND ${Python_EXECUTABLE} -c "import importlib.util as u; s = u.find_spec('torch'); print(s.submodule_search_locations[0] if s else '')"
  OUTPUT_VARIABLE HPCORE_TORCH_ROOT OUTPUT_STRIP_TRAILING_WHITESPACE)
if(NOT HPCORE_TORCH_ROOT)
  execute_process(COMMAND ${Python_EXECUTABLE} -c "import sysconfig; print(sysconfig.get_paths()['purelib'] + '/torch')"
    OUTPUT_VARIABLE HPCORE_TORCH_ROOT OUTPUT_STRIP_TRAILING_WHITESPACE)
endif()
# torch is pinned in pyproject.toml: between minors the class layout of c10d changes.
file(STRINGS ${PROJECT_SOURCE_DIR}/pyproject.toml HPCORE_TORCH_PIN REGEX "\"torch==[0-9.]+\"")
string(REGEX REPLACE ".*\"torch==([0-9]+\\.[0-9]+)[0-9.]*\".*" "\\1" HPCORE_TORCH_PIN "${HPCORE_TORCH_PIN}")
if(NOT EXISTS ${HPCORE_TORCH_ROOT}/include)
  message(WARNING "hpcore: no torch in ${HPCORE_TORCH_ROOT}: the c10d backend is not built. "
    "Install torch ${HPCORE_TORCH_PIN} first, then build again")
  return()
endif()
file(STRINGS ${HPCORE_TORCH_ROOT}/version.py HPCORE_TORCH_VERSION REGEX "^__version__ =")
string(REGEX REPLACE "^[^0-9]*([0-9]+\\.[0-9]+).*" "\\1" HPCORE_TORCH_VERSION "${HPCORE_TORCH_VERSION}")
if(NOT HPCORE_TORCH_VERSION STREQUAL HPCORE_TORCH_PIN)
  message(WARNING "hpcore: torch ${HPCORE_TORCH_VERSION} in ${HPCORE_TORCH_ROOT}: the c10d backend is not built, "
    "it is for torch ${HPCORE_TORCH_PIN}. Install that, then build again")
  return()
endif()
message(STATUS "hpcore: _c10d for torch ${HPCORE_TORCH_VERSION} in ${HPCORE_TORCH_ROOT}")
add_library(_c10d MODULE ${HPCORE_TORCH_SOURCES})
target_include_directories(_c10d SYSTEM PRIVATE ${HPCORE_TORCH_ROOT}/include
  ${HPCORE_TORCH_ROOT}/include/torch/csrc/api/include ${Python_INCLUDE_DIRS})
target_compile_definitions(_c10d PRIVATE USE_DISTRIBUTED USE_C10D_GLOO _GLIBCXX_USE_CXX11_ABI=1)
target_compile_options(_c10d PRIVATE ${HPCORE_WARNINGS} -fvisibility=hidden -g0)
target_link_directories(_c10d PRIVATE ${HPCORE_TORCH_ROOT}/lib)
target_link_libraries(_c10d PRIVATE hpcore torch torch_cpu c10 torch_python)
set_target_properties(_c10d PROPERTIES PREFIX "" SUFFIX ".${Python_SOABI}.so"
  BUILD_RPATH "$ORIGIN;$ORIGIN/../torch/lib;${HPCORE_TORCH_ROOT}/lib" INSTALL_RPATH "$ORIGIN;$ORIGIN/../torch/lib"
  BUILD_WITH_INSTALL_RPATH OFF)
list(APPEND HPCORE_TARGETS _c10d)
