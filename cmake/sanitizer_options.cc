// SPDX-License-Identifier: Apache-2.0
//
// What the sanitizers are told, built into every program of the asan and tsan variants, so that a
// program run by hand, by ctest or by an interop test behaves alike. The runtimes call these
// functions before anything else is set up; ASAN_OPTIONS and its kin still override them.

#define RINGDISK_SANITIZER_OPTIONS(function, options)                                     \
  extern "C" __attribute__((used, visibility("default"), no_sanitize("all"))) const char* \
  function() {                                                                            \
    return options;                                                                       \
  }

RINGDISK_SANITIZER_OPTIONS(__asan_default_options,
                           "detect_stack_use_after_return=1:check_initialization_order=1:"
                           "allocator_may_return_null=1")
RINGDISK_SANITIZER_OPTIONS(__ubsan_default_options, "print_stacktrace=1:halt_on_error=1")
RINGDISK_SANITIZER_OPTIONS(__tsan_default_options,
                           "halt_on_error=1:second_deadlock_stack=1:"
                           "allocator_may_return_null=1")
