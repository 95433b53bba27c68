# SPDX-License-Identifier: Apache-2.0
#
# Warnings are errors in every variant. clang judges conversions, shadowing, extensions, destructors
# and globals; g++ 12 adds its own eyes where they are reliable (its data-flow warnings are wrong
# about coroutine frames and optionals, so they are off).

# What all our own code is held to.
function(rd_strict target)
  target_compile_options(${target} PRIVATE
    -Wall -Wextra -Werror
    -Wcast-qual -Wformat=2 -Wimplicit-fallthrough -Wold-style-cast -Woverloaded-virtual -Wundef
    -Wno-missing-field-initializers)  # option structs have defaults
  if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
    target_compile_options(${target} PRIVATE
      -Wpedantic -Wconversion -Wno-sign-conversion -Wshadow -Wnon-virtual-dtor -Wextra-semi
      -Wloop-analysis -Wcomma -Wunreachable-code)
  else()
    target_compile_options(${target} PRIVATE
      -Wduplicated-cond -Wlogical-op -Wno-maybe-uninitialized -Wno-array-bounds
      -Wno-stringop-overflow -Wno-dangling-pointer)
  endif()
endfunction()

# Library code also has no globals that need code to be built or torn down, and no function
# without a declaration.
function(rd_strict_library target)
  rd_strict(${target})
  if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
    target_compile_options(${target} PRIVATE
      -Wglobal-constructors -Wexit-time-destructors -Wmissing-prototypes)
  endif()
endfunction()
