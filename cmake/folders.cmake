# SPDX-License-Identifier: Apache-2.0
#
# The one convention of the build. For each folder F of src/, by the end of a file's name:
#
#   x.cc          -> static library rd_F, linked with the libraries DEPS allows F
#   x_throwing.cc -> the same, compiled with exceptions (wraps a library that throws)
#   x_test.cc     -> executable F_test; each test in it is a ctest test "F/Suite.Name", label "unit"
#   x_fuzz.cc     -> x_fuzz, which replays fuzz/corpus/x_fuzz/ as a test, label "fuzz"; in the asan
#                    variant it is a libFuzzer executable besides
#   x_bench.cc    -> executable F_bench (release variant only)
#   app/main.cc   -> executable ringdisk
#
# A large folder may have rooms, folders one level down (qcow2/check/): they belong to its library
# and its tests; DEPS knows the folder alone. sim/ is the library rd_sim in the same way; its
# test_main.cc, once there, is main() of every test. Executables lie flat in the binary directory:
# build/release/ringdisk, build/asan/base_test, build/asan/x_fuzz.
set(RD_ONLY "" CACHE STRING
  "build only these folders, e.g. base;async;sim (empty: all); for work on one corner")
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}")
set(CMAKE_POSITION_INDEPENDENT_CODE ON)

# Sets ${folder}_{library,test,fuzz,bench} of the caller to the .cc files of `path`, sorted by
# what they become.
function(rd_sort_sources folder path)
  file(GLOB sources CONFIGURE_DEPENDS
    "${CMAKE_SOURCE_DIR}/${path}/*.cc" "${CMAKE_SOURCE_DIR}/${path}/*/*.cc")
  foreach(kind test fuzz bench)
    set(files ${sources})
    list(FILTER files INCLUDE REGEX "_${kind}\\.cc$")
    list(FILTER sources EXCLUDE REGEX "_${kind}\\.cc$")
    set(${folder}_${kind} "${files}" PARENT_SCOPE)
  endforeach()
  list(FILTER sources EXCLUDE REGEX "/(main|test_main)\\.cc$")
  set(${folder}_library "${sources}" PARENT_SCOPE)
endfunction()

# The thread sanitizer looks for what two threads do to each other. Most tests are simulated, all
# shards on one thread: there is nothing to find in them, and half an hour to build and run. It
# gets those that start threads; the list must name what starts them.
set(RD_STARTS_THREADS
  "std::thread|RealWorld|real_loops_test\\.h|runtime/runtime\\.h|process_world\\.h")

# Keeps of `files` (a variable's name) what starts threads.
function(rd_keep_threaded files)
  set(kept "")
  foreach(file IN LISTS ${files})
    file(STRINGS "${file}" found REGEX "${RD_STARTS_THREADS}" LIMIT_COUNT 1)
    if(found)
      list(APPEND kept "${file}")
    endif()
  endforeach()
  set(${files} "${kept}" PARENT_SCOPE)
endfunction()

# What g++ could get wrong is in the coroutines and in code that every folder builds on: their
# tests are built with it. The rest is tried as one program against peers (scripts/run-tests).
set(RD_GCC_TESTED base async runtime crypto codec block nodes file nbd control)

# The library of one folder. `sources` must not be empty.
function(rd_add_library folder)
  add_library(rd_${folder} STATIC ${ARGN})
  target_include_directories(rd_${folder} PUBLIC "${CMAKE_SOURCE_DIR}/src")
  rd_strict_library(rd_${folder})
  if(RD_VARIANT STREQUAL "asan" AND NOT folder STREQUAL "sim")
    target_compile_options(rd_${folder} PRIVATE -fsanitize=fuzzer-no-link)  # what guides fuzzers
  endif()
  foreach(source IN LISTS ARGN)
    if(source MATCHES "_throwing\\.cc$")
      set_source_files_properties("${source}" PROPERTIES COMPILE_OPTIONS
        "-fexceptions;$<$<CXX_COMPILER_ID:Clang>:-Wno-global-constructors>")
    endif()
  endforeach()
  foreach(other IN LISTS RD_ALLOWED_${folder})
    if(TARGET rd_${other})
      target_link_libraries(rd_${folder} PUBLIC rd_${other})
    endif()
  endforeach()
  target_link_libraries(rd_${folder} PUBLIC Threads::Threads)
  rd_link_externals(rd_${folder} ${folder})
  target_link_libraries(rd_everything INTERFACE rd_${folder})
endfunction()

# What every executable gets besides its own sources.
function(rd_add_sanitizer_options target)
  if(TARGET rd_sanitizer_options)
    target_link_libraries(${target} PRIVATE rd_sanitizer_options)
  endif()
endfunction()

# An executable for developers: sees src/, the repository's root (for sim/…) and every library of
# the project.
function(rd_add_tool name)
  add_executable(${name} ${ARGN})
  target_include_directories(${name} PRIVATE "${CMAKE_SOURCE_DIR}/src" "${CMAKE_SOURCE_DIR}")
  target_link_libraries(${name} PRIVATE rd_everything)
  rd_add_sanitizer_options(${name})
  rd_strict(${name})
endfunction()

function(rd_add_test folder)
  rd_add_tool(${folder}_test ${ARGN})
  target_link_libraries(${folder}_test PRIVATE rd_test_main)
  target_compile_options(${folder}_test PRIVATE ${RD_TEST_OPTIONS})
  gtest_discover_tests(${folder}_test
    TEST_PREFIX "${folder}/"
    DISCOVERY_MODE PRE_TEST
    DISCOVERY_TIMEOUT 60
    PROPERTIES TIMEOUT ${RD_TEST_TIMEOUT} LABELS unit)
endfunction()

function(rd_add_libfuzzer name source)
  rd_add_tool(${name} "${source}")
  target_compile_options(${name} PRIVATE -fsanitize=fuzzer-no-link)
  target_link_options(${name} PRIVATE -fsanitize=fuzzer)
endfunction()

function(rd_add_fuzzer source)
  get_filename_component(name "${source}" NAME_WE)
  if(TARGET ${name})
    message(FATAL_ERROR "two fuzzers are called ${name}; name ${source} after what it parses, "
            "e.g. nbd_request_fuzz.cc")
  endif()
  set(corpus "${CMAKE_SOURCE_DIR}/fuzz/corpus/${name}")
  if(RD_VARIANT STREQUAL "asan")
    rd_add_libfuzzer(${name} "${source}")
    add_test(NAME "fuzz/${name}" COMMAND ${name} -runs=0 "${corpus}")
  else()
    rd_add_tool(${name} "${source}" "${CMAKE_SOURCE_DIR}/fuzz/replay_main.cc")
    add_test(NAME "fuzz/${name}" COMMAND ${name} "${corpus}")
  endif()
  set_tests_properties("fuzz/${name}" PROPERTIES
    LABELS fuzz TIMEOUT ${RD_TEST_TIMEOUT})
endfunction()

# --- the folders ----------------------------------------------------------------------------------

add_library(rd_everything INTERFACE)
set(rd_test_folders "")
set(rd_bench_folders "")
set(rd_fuzzers "")
foreach(folder IN LISTS RD_FOLDERS)
  if(RD_ONLY AND NOT folder IN_LIST RD_ONLY)
    continue()
  endif()
  set(path "src/${folder}")
  if(folder STREQUAL "sim")
    set(path "sim")
  endif()
  rd_sort_sources(${folder} "${path}")
  if(${folder}_library)
    rd_add_library(${folder} ${${folder}_library})
  endif()
  list(APPEND rd_fuzzers ${${folder}_fuzz})
  if(RD_VARIANT STREQUAL "tsan")
    rd_keep_threaded(${folder}_test)
  elseif(RD_VARIANT STREQUAL "gcc" AND NOT folder IN_LIST RD_GCC_TESTED)
    set(${folder}_test "")
  endif()
  foreach(kind test bench)
    if(${folder}_${kind})
      list(APPEND rd_${kind}_folders ${folder})
    endif()
  endforeach()
endforeach()
if(TARGET rd_sim)
  target_include_directories(rd_sim PUBLIC "${CMAKE_SOURCE_DIR}")
endif()

# A folder that DEPS does not rank would silently not be built.
file(GLOB rd_all_sources CONFIGURE_DEPENDS
  RELATIVE "${CMAKE_SOURCE_DIR}/src" "${CMAKE_SOURCE_DIR}/src/*/*.cc")
foreach(source IN LISTS rd_all_sources)
  get_filename_component(folder "${source}" DIRECTORY)
  if(NOT folder IN_LIST RD_FOLDERS)
    message(FATAL_ERROR "src/${folder} has no line in DEPS; add one that says what it may include")
  endif()
endforeach()

# --- what is made of them -------------------------------------------------------------------------

file(GLOB rd_main CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/src/app/main.cc")
if(rd_main AND (NOT RD_ONLY OR "app" IN_LIST RD_ONLY))
  add_executable(ringdisk "${rd_main}")
  target_include_directories(ringdisk PRIVATE "${CMAKE_SOURCE_DIR}/src")
  target_link_libraries(ringdisk PRIVATE rd_everything)
  rd_add_sanitizer_options(ringdisk)
  rd_strict_library(ringdisk)
endif()

file(GLOB rd_test_main CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/sim/test_main.cc")
if(rd_test_main AND (NOT RD_ONLY OR "sim" IN_LIST RD_ONLY))
  add_library(rd_test_main OBJECT "${rd_test_main}")
  target_include_directories(rd_test_main PRIVATE "${CMAKE_SOURCE_DIR}/src" "${CMAKE_SOURCE_DIR}")
  target_link_libraries(rd_test_main PUBLIC rd_everything GTest::gmock)
  rd_strict(rd_test_main)
else()
  add_library(rd_test_main INTERFACE)
  target_link_libraries(rd_test_main INTERFACE GTest::gmock_main)
endif()
foreach(folder IN LISTS rd_test_folders)
  rd_add_test(${folder} ${${folder}_test})
endforeach()

if(NOT RD_VARIANT MATCHES "^(tsan|gcc)$")
  foreach(source IN LISTS rd_fuzzers)
    rd_add_fuzzer("${source}")
  endforeach()
endif()
if(RD_VARIANT STREQUAL "asan")
  rd_add_libfuzzer(canary_fuzz "${CMAKE_SOURCE_DIR}/fuzz/canary_fuzz.cc")
endif()

if(RD_VARIANT STREQUAL "release" AND rd_bench_folders)
  find_package(benchmark REQUIRED)
  foreach(folder IN LISTS rd_bench_folders)
    rd_add_tool(${folder}_bench ${${folder}_bench})
    target_link_libraries(${folder}_bench PRIVATE benchmark::benchmark_main)
  endforeach()
endif()
