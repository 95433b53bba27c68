# SPDX-License-Identifier: Apache-2.0
#
# RD_VARIANT (set by the preset) -> compiler and linker options of everything in the build.
# CMAKE_BUILD_TYPE stays empty, so these lines are all there is.
set(RD_VARIANTS release debug asan tsan fuzz gcc)
set(RD_VARIANT "release" CACHE STRING "one of: ${RD_VARIANTS}")
if(NOT RD_VARIANT IN_LIST RD_VARIANTS)
  message(FATAL_ERROR "RD_VARIANT is '${RD_VARIANT}'; use a preset (cmake --preset release), "
          "or set it to one of ${RD_VARIANTS}")
endif()
set(CMAKE_BUILD_TYPE "" CACHE STRING "unused: RD_VARIANT decides" FORCE)

# Exceptions are off: libraries that throw are wrapped in files named *_throwing.cc, which get
# -fexceptions back.
add_compile_options(-g -fno-exceptions -fno-omit-frame-pointer)
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  add_link_options(-fuse-ld=lld-16)
endif()

set(RD_TEST_TIMEOUT 60)    # seconds, one test
set(asan_and_ubsan -fsanitize=address,undefined -fno-sanitize-recover=all)

if(RD_VARIANT STREQUAL "release" OR RD_VARIANT STREQUAL "gcc")
  add_compile_options(-O2)
  add_compile_definitions(_FORTIFY_SOURCE=2)
elseif(RD_VARIANT STREQUAL "debug")
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
elseif(RD_VARIANT STREQUAL "fuzz")
  # Libraries are instrumented without libFuzzer's main; cmake/folders.cmake links the fuzzers
  # with it.
  add_compile_options(-O1 ${asan_and_ubsan} -fsanitize=fuzzer-no-link)
  add_link_options(${asan_and_ubsan})
  add_compile_definitions(_GLIBCXX_ASSERTIONS FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION)
endif()

if(RD_VARIANT MATCHES "^(asan|tsan|fuzz)$")
  set(RD_TEST_TIMEOUT 240)
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
