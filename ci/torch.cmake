# _c10d_<major>_<minor>: the only users of libtorch, one for each minor of torch, built with that torch's own pybind11:
# another version of pybind11 would not see torch's classes.
set(HPCORE_TORCH_ROOTS "" CACHE STRING
  "Folders of torch packages (with include/ and lib/) to build for; empty: the torch of the Python environment")
file(STRINGS ${PROJECT_SOURCE_DIR}/pyproject.toml HPCORE_TORCH_KNOWN REGEX "^torch = ")
string(REGEX MATCHALL "[0-9]+\\.[0-9]+" HPCORE_TORCH_KNOWN "${HPCORE_TORCH_KNOWN}")
list(JOIN HPCORE_TORCH_KNOWN " or " HPCORE_TORCH_WANTED)

function(hpcore_installed_torch result)
  execute_process(COMMAND ${Python_EXECUTABLE} -c "import importlib.util as u; s = u.find_spec('torch'); print(s.submodule_search_locations[0] if s else '')"
    OUTPUT_VARIABLE root OUTPUT_STRIP_TRAILING_WHITESPACE)
  if(NOT root)
    execute_process(COMMAND ${Python_EXECUTABLE} -c "import sysconfig; print(sysconfig.get_paths()['purelib'] + '/torch')"
      OUTPUT_VARIABLE root OUTPUT_STRIP_TRAILING_WHITESPACE)
  endif()
  set(${result} ${root} PARENT_SCOPE)
endfunction()

function(hpcore_add_c10d root)
  if(NOT EXISTS ${root}/include)
    message(WARNING "hpcore: no torch in ${root}: the c10d backend is not built. "
      "Install torch ${HPCORE_TORCH_WANTED} first, then build again")
    return()
  endif()
  file(STRINGS ${root}/version.py version REGEX "^__version__ =")
  string(REGEX REPLACE "^[^0-9]*([0-9]+\\.[0-9]+).*" "\\1" version "${version}")
  if(NOT version IN_LIST HPCORE_TORCH_KNOWN)
    message(WARNING "hpcore: torch ${version} in ${root}: the c10d backend is not built, "
      "it is for torch ${HPCORE_TORCH_WANTED}. Install that, then build again")
    return()
  endif()
  string(REPLACE "." "_" name "_c10d_${version}")
  string(REGEX REPLACE "^[0-9]+\\." "" minor "${version}")
  message(STATUS "hpcore: ${name} for torch ${version} in ${root}")
  add_library(${name} MODULE ${HPCORE_TORCH_SOURCES})
  target_include_directories(${name} SYSTEM PRIVATE ${root}/include ${root}/include/torch/csrc/api/include
    ${Python_INCLUDE_DIRS})
  target_compile_definitions(${name} PRIVATE USE_DISTRIBUTED USE_C10D_GLOO _GLIBCXX_USE_CXX11_ABI=1
    HPCORE_C10D_MODULE=${name} HPCORE_TORCH_MINOR=${minor})
  target_compile_options(${name} PRIVATE ${HPCORE_WARNINGS} -fvisibility=hidden -g0)
  target_link_directories(${name} PRIVATE ${root}/lib)
  target_link_libraries(${name} PRIVATE hpcore torch torch_cpu c10 torch_python)
  set_target_properties(${name} PROPERTIES PREFIX "" SUFFIX ".${Python_SOABI}.so"
    BUILD_RPATH "$ORIGIN;$ORIGIN/../torch/lib;${root}/lib" INSTALL_RPATH "$ORIGIN;$ORIGIN/../torch/lib"
    BUILD_WITH_INSTALL_RPATH OFF)
  set(HPCORE_TARGETS ${HPCORE_TARGETS} ${name} PARENT_SCOPE)
endfunction()

set(HPCORE_TORCH_FOUND "${HPCORE_TORCH_ROOTS}")
if(NOT HPCORE_TORCH_FOUND)
  hpcore_installed_torch(HPCORE_TORCH_FOUND)
endif()
foreach(root IN LISTS HPCORE_TORCH_FOUND)
  hpcore_add_c10d(${root})
endforeach()
