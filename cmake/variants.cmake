# SPDX-License-Identifier: Apache-2.0
#
# RD_VARIANT (set by the preset) -> compiler and linker options of everything in the build.
# CMAKE_BUILD_TYPE stays empty, so these lines are all there is.
set(RD_VARIANTS release debug asan tsan gcc)
set(RD_VARIANT "release" CACHE STRING "one of: ${RD_VARIANTS}")
if(NOT RD_VARIANT IN_LIST RD_VARIANTS)
  message(FATAL_ERROR "RD_VARIANT is '${RD_VARIANT}'; use a preset (cmake --preset release), "
          "or set it to one of ${RD_VARIANTS}")
endif()
set(CMAKE_BUILD_TYPE "" CACHE STRING "unused: RD_VARIANT decides" FORCE)

# Exceptions are off: libraries that throw are wrapped in files named *_throwing.cc, which get
# -fexceptions back.
add_compile_options(-fno-exceptions -fno-omit-frame-pointer)
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  set(line_tables -gline-tables-only)
else()
  set(line_tables -g1)
endif()
# Variants that are only tested know lines and no variables: a seventh of clang's time, a quarter of
# g++'s.
if(RD_VARIANT MATCHES "^(asan|tsan|gcc)$")
  add_compile_options(${line_tables})
else()
  add_compile_options(-g)
endif()
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  add_link_options(-fuse-ld=lld-16)
endif()

set(RD_TEST_TIMEOUT 60)    # seconds, one test
# What the files of tests are compiled with besides: they are most of what there is to compile and
# run for seconds. Below -O1, under sanitizers, that takes a third of the time.
set(RD_TEST_OPTIONS -O1 ${line_tables})
set(asan_and_ubsan -fsanitize=address,undefined -fno-sanitize-recover=all)

if(RD_VARIANT STREQUAL "release" OR RD_VARIANT STREQUAL "gcc")
  add_compile_options(-O2)
  add_compile_definitions(_FORTIFY_SOURCE=2)
elseif(RD_VARIANT STREQUAL "debug")
  set(RD_TEST_OPTIONS "")
  add_compile_options(-O0)
  add_compile_definitions(_GLIBCXX_ASSERTIONS)
elseif(RD_VARIANT STREQUAL "asan")
  add_compile_options(-O1 ${asan_and_ubsan})
  add_link_options(${asan_and_ubsan})
  add_compile_definitions(_GLIBCXX_ASSERTIONS)
elseif(RD_VARIANT STREQUAL "tsan")
  add_compile_options(-O1 -fsanitize=thread)
  add_link_options(-fsanitize=thread)
  add_compile_definitions(_GLIBCXX_ASSERTIONS)
endif()

if(RD_VARIANT MATCHES "^(asan|tsan)$")
  set(RD_TEST_OPTIONS -O0 ${line_tables})
  set(RD_TEST_TIMEOUT 400)
  add_library(rd_sanitizer_options OBJECT "${CMAKE_SOURCE_DIR}/cmake/sanitizer_options.cc")
  # The sanitizers of clang 16 cannot place their shadow memory where the kernel randomises with
  # more than 28 bits; there, tests run with randomisation off.
  set(rnd_bits 28)
  if(EXISTS /proc/sys/vm/mmap_rnd_bits)
    execute_process(COMMAND cat /proc/sys/vm/mmap_rnd_bits OUTPUT_VARIABLE rnd_bits ERROR_QUIET
                    OUTPUT_STRIP_TRAILING_WHITESPACE)
  endif()
  find_program(RD_SETARCH setarch)
  if(RD_SETARCH AND "${rnd_bits}" GREATER 28)
    execute_process(COMMAND "${RD_SETARCH}" -R true RESULT_VARIABLE setarch_status ERROR_QUIET)
    if(setarch_status EQUAL 0)
      set(CMAKE_CROSSCOMPILING_EMULATOR "${RD_SETARCH};-R")
    endif()
  endif()
endif()
