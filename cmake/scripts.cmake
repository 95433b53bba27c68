# SPDX-License-Identifier: Apache-2.0
#
# Tests written in Python, one ctest test a file: interop/*_test.py and e2e/*_test.py (label
# "interop", and "e2e" for those in a virtual machine, of which one runs at a time; they find the
# binary in $RINGDISK and say "skipped" with exit status 77) and scripts/*_test.py (label "tidy").
# The one in /usr/bin sees Debian's python3-* packages.
find_program(RD_PYTHON python3 PATHS /usr/bin NO_DEFAULT_PATH)
find_program(RD_PYTHON python3 REQUIRED)

function(rd_add_python_tests folder label timeout_seconds)
  set(environment "RINGDISK=${CMAKE_BINARY_DIR}/ringdisk" "RD_VARIANT=${RD_VARIANT}")
  file(GLOB tests CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/${folder}/*_test.py")
  foreach(test IN LISTS tests)
    get_filename_component(name "${test}" NAME_WE)
    add_test(NAME "${folder}/${name}" COMMAND "${RD_PYTHON}" "${test}")
    set_tests_properties("${folder}/${name}" PROPERTIES
      LABELS "${label}" TIMEOUT ${timeout_seconds} SKIP_RETURN_CODE 77
      ENVIRONMENT "${environment}")
    if("e2e" IN_LIST label)
      set_tests_properties("${folder}/${name}" PROPERTIES RESOURCE_LOCK guest)
    endif()
  endforeach()
endfunction()

if(NOT RD_ONLY)
  rd_add_python_tests(interop interop 400)
  rd_add_python_tests(e2e "interop;e2e" 600)
  rd_add_python_tests(scripts tidy 120)
  rd_add_python_tests(bench tidy 120)
endif()
